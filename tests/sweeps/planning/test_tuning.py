"""The trials of `tuning:`, what is chosen from them, and the expected best of k."""

import itertools
import re

import numpy as np
import pandas as pd
import pytest

from tests.sweeps.conftest import job, lines
from xlora_bench.results.reports.trials import curves, expected_best, write_trials
from xlora_bench.sweeps.planning.search_space import Space

BOTH = {"adapter": "lora,lu", "seed": "0,1"}
TUNING = {
    "seed": 1000,
    "holdout": 64,
    "trials": 2,
    "by": ["adapter", "task"],
    "space": [{"when": {"adapter": "lu"}, "optimizer.lr": [1e-3, 2e-3]}, {"optimizer.lr": [0.1, 0.2]}],
}


def of_kind(rounds, kind):
    return [list(planned.overrides) for planned in rounds.runs if kind in planned.tuning]


def test_every_method_gets_its_trials_on_the_tuning_seed_and_rows(phases_of):
    rounds = phases_of(BOTH, tuning=TUNING)
    assert of_kind(rounds, "trial") == [
        [f"adapter={adapter}", "seed=1000", f"optimizer.lr={lr}", "task.holdout=64"]
        for adapter, lr in [("lora", 0.1), ("lora", 0.2), ("lu", 0.001), ("lu", 0.002)]
    ]
    assert of_kind(rounds, "fixed") == [
        [f"adapter={name}", f"seed={seed}"] for name in ("lora", "lu") for seed in (0, 1)
    ]


def test_the_best_trial_is_taken_and_a_tuned_run_that_is_the_fixed_one_is_one(phases_of):
    rounds = phases_of(BOTH, tuning=TUNING)
    # lora: the better one collapsed; lu: two equal, and the first has the value that is fixed
    jobs = {0: job(0.9, "collapsed"), 1: job(0.6), 2: job(0.7), 3: job(0.7)}
    reported = [(planned.overrides, planned.tuning) for planned in rounds.tuner.reported(jobs)]
    assert reported == [
        (("adapter=lora", "seed=0"), ("fixed",)),
        (("adapter=lora", "seed=0", "optimizer.lr=0.2"), ("tuned",)),
        (("adapter=lora", "seed=1"), ("fixed",)),
        (("adapter=lora", "seed=1", "optimizer.lr=0.2"), ("tuned",)),
        (("adapter=lu", "seed=0"), ("fixed", "tuned")),
        (("adapter=lu", "seed=1"), ("fixed", "tuned")),
    ]
    assert rounds.tuner.notes[1:] == ["Tuned: lora cola: optimizer.lr 0.2", "Tuned: lu cola: optimizer.lr 0.001"]


@pytest.mark.parametrize(("scores", "rate"), [((0.6, 0.7), 0.2), ((0.7, 0.6), 0.1), ((0.6, 0.6), 0.1)])
def test_the_trial_with_the_highest_score_wins(scores, rate, phases_of):
    rounds = phases_of({"adapter": "lora"}, tuning=TUNING)
    rounds.tuner.reported(dict(enumerate(map(job, scores))))
    assert rounds.tuner.notes[1:] == [f"Tuned: lora cola: optimizer.lr {rate}"]


def test_without_a_trial_that_is_done_there_is_no_tuned_run(phases_of):
    rounds = phases_of({"adapter": "lora"}, tuning=TUNING)
    assert [planned.tuning for planned in rounds.tuner.reported({0: job(None, "failed")})] == [("fixed",)]
    assert "Tuned: lora cola: no trial is done" in rounds.tuner.notes


def test_a_trials_parent_has_the_tuning_seed_all_its_rows_and_the_fixed_values(phases_of):
    rule = {"when": {"task": "rte"}, "set": {"start_from": ["task=mnli"]}}
    rounds = phases_of({"adapter": "lora", "task": "rte"}, grid=[rule], tuning=TUNING)
    (*_, start), (*_, other) = of_kind(rounds, "trial")
    assert start == other == "start_from=['task=mnli','optimizer.lr=0.001','task.holdout=null']"
    (tuned,) = [planned for planned in rounds.tuner.reported({0: job(0.6)}) if planned.tuning == ("tuned",)]
    assert tuned.overrides[-1] == "start_from=['task=mnli','optimizer.lr=0.001']"


BAD = {
    "shared seed": ({"seed": 1}, "`tuning.seed` (=1) is one of the reported seeds (0, 1)"),
    "grid larger than the budget": ({"trials": 1}, "`tuning.trials` (=1) must be the size of every grid"),
    "budget larger than the grid": ({"trials": 3}, "has 2 points"),
    "random budget larger than the lists": ({"trials": 3, "search": "random"}, "must be at most 2"),
    "unknown search": ({"search": "optuna"}, "`tuning.search` (=optuna) must be grid or random"),
    "unknown key": ({"holdouts": 3}, "missing or unknown in `tuning`: holdouts"),
    "no rows": ({"holdout": 0}, "`tuning.holdout` (=0) must be a whole number of at least 1"),
    "unknown by": ({"by": ["adaptr"]}, "`adaptr` in `tuning.by` is not a key"),
    "no space": ({"space": []}, "`tuning.space` is empty"),
    "space for nobody": ({"space": TUNING["space"][:1]}, "no rule of `tuning.space` is for `adapter=lora seed=0`"),
    "two spaces in a group": ({"by": ["task"]}, "several rules for the runs of one group (cola)"),
    "range in a grid": ({"space": [{"optimizer.lr": {"low": 1, "high": 2}}]}, "is a range"),
    "empty range": ({"search": "random", "space": [{"optimizer.lr": {"low": 2, "high": 2}}]}, "low < high"),
    "log of zero": ({"search": "random", "space": [{"optimizer.lr": {"low": 0, "high": 2, "log": True}}]}, "above 0"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_tuning_is_named(phases_of, case):
    change, message = BAD[case]
    with pytest.raises(ValueError, match=re.escape(message)):
        phases_of(BOTH, tuning={**TUNING, **change})


def test_a_tuned_key_on_the_command_line_is_refused(phases_of):
    with pytest.raises(ValueError, match=r"`optimizer.lr` is tuned and set on the command line"):
        phases_of(BOTH, "optimizer.lr=0.1", tuning=TUNING)
    assert lines(phases_of(BOTH, "optimizer.lr=0.1"))


def test_random_search_draws_the_same_quantiles_for_every_method():
    small, large = (
        [
            point["lr"]
            for point in Space(when={}, axes={"lr": {"low": low, "high": 100 * low, "log": True}}).draw(50, seed=3)
        ]
        for low in (1e-5, 1e-3)
    )
    assert np.allclose(np.array(large) / np.array(small), 100, rtol=1e-2)  # three digits
    assert all(1e-5 <= value <= 1e-3 for value in small)
    assert len(set(small)) > 40
    assert abs(np.log10(small).mean() - -4) < 4 * (2 / np.sqrt(12)) / np.sqrt(50)  # uniform in the logarithm
    assert Space(when={}, axes={"a": [1, 2], "b": [3, 4]}).draw(4, seed=0) != []


def test_the_expected_best_is_the_mean_over_all_draws_with_replacement():
    scores = [0.3, 0.9, 0.5, 0.5]
    for k, value in enumerate(expected_best(scores), start=1):
        assert value == pytest.approx(np.mean([max(draw) for draw in itertools.product(scores, repeat=k)]))
    with pytest.raises(ValueError, match="no score"):
        expected_best([])


def test_a_trial_that_collapsed_counts_as_the_lowest_of_its_task():
    trials = pd.DataFrame(
        {
            "adapter": ["lora", "lora", "lu", "lu"],
            "task": "rte",
            "status": ["completed", "collapsed", "completed", "completed"],
            "score": [0.8, 0.9, 0.4, 0.6],  # the score of an epoch before it collapsed
        }
    )
    first = curves(trials, by=("adapter", "task")).set_index("adapter").query("k == 1")["expected_best"]
    assert first.to_dict() == pytest.approx({"lora": (0.8 + 0.4) / 2, "lu": 0.5})


def test_trials_leave_a_table_a_curve_and_a_figure(tmp_path):
    frame = pd.DataFrame(
        {
            "adapter": ["lora", "lora", "lu"],
            "task": "rte",
            "status": ["completed", "completed", "failed"],
            "score": [0.5, 0.7, np.nan],
        }
    )
    write_trials(frame, tmp_path, by=("adapter", "init_scheme", "task"))
    table = pd.read_csv(tmp_path / "expected_best.csv")
    assert table.adapter.tolist() == ["lora", "lora"]
    assert table.expected_best.tolist() == pytest.approx([0.6, 0.65])  # 0.5 / 4 + 0.7 * 3 / 4
    assert (tmp_path / "expected_best.png").stat().st_size > 1000
    assert len(pd.read_csv(tmp_path / "trials.csv")) == 3
    assert curves(frame, by=()).trials.tolist() == [3, 3, 3]
