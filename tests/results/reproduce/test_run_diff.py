"""The differences between two runs, and the verdict on them."""

import gzip
import math

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from tests.helpers.records import record
from xlora_bench.cli.diff import main
from xlora_bench.results.reproduce.diff_report import diff_report
from xlora_bench.results.reproduce.records_archive import (
    find_recorded,
    read_archive,
    recorded_in,
    runs_of_report,
    write_archive,
)
from xlora_bench.results.reproduce.run_artifacts import find_run, read_run
from xlora_bench.results.reproduce.run_diff import run_diff

MACHINE = {"cpu": "c", "threads": 1, "gpus": [], "memory_bytes": 8, "platform": "p"}
VERSIONS = {"torch": "2.6", "wandb": "0.19"}
CODE = {"commit": "a" * 40, "dirty": False}
HASHES = {"data": "d", "weights": "w", "tokenizer": "t"}
CONFIG = {
    "adapter": {"rank": 8, "alpha": 16.0},
    "optimizer": {"lr": 1e-3},
    "seed": 0,
    "paths": {"data_dir": "/somewhere"},
    "trainer": {"max_epochs": 2},
}


def frame(logit=0.25, flips=0):
    """Predictions of 2 epochs of 4 examples; the last `flips` of epoch 2 are turned over."""
    rows = pd.DataFrame({"epoch": np.repeat([1, 2], 4), "split": "validation", "idx": [0, 1, 2, 3] * 2})
    prediction = np.array([0, 1, 0, 1, 0, 1, 0, 1])
    prediction[8 - flips :] = 1 - prediction[8 - flips :]
    return rows.assign(label=[0, 1, 1, 1] * 2, prediction=prediction, logit_0=np.float32(logit), logit_1=np.float32(0))


def run(folder, run_id="a" * 16, *, predictions=None, tensor=None, **known):
    place = folder / "runs" / run_id
    defaults = {"code": CODE, "versions": VERSIONS, "machine": MACHINE, "hashes": HASHES, "config": CONFIG}
    record(run_id, **(defaults | known)).write(place / "record.json")
    (frame() if predictions is None else predictions).to_parquet(place / "predictions.parquet")
    save_file({"x": torch.tensor([1.0, 2.0]) if tensor is None else tensor}, place / "adapter.safetensors")
    return read_run(place)


@pytest.fixture
def pair(tmp_path):
    def make(**changes):
        return run(tmp_path / "one"), run(tmp_path / "other", **changes)

    return make


def test_the_same_run_twice_is_bit_identical(pair):
    explanation = diff_report(*pair())
    assert explanation.sections == {}
    assert explanation.diff.identical
    assert explanation.diff.difference == 0
    assert explanation.verdict.startswith("the same run on the same machine, versions and threads: bit-identical")


def test_every_section_shows_both_values(pair):
    changes = {
        "config": CONFIG | {"adapter": {"rank": 4, "alpha": 16.0}, "paths": {"data_dir": "/elsewhere"}},
        "seed": 3,
        "hashes": HASHES | {"weights": "v"},
        "code": CODE | {"commit": "b" * 40},
        "versions": VERSIONS | {"torch": "2.7"},
        "machine": MACHINE | {"threads": 2},
        "parameters": {"adapter": 50, "trainable": 150},
    }
    sections = diff_report(*pair(**changes)).sections
    assert sections == {
        "config": {"adapter.rank": (8, 4)},  # paths are no part of a run
        "seed": {"seed": (0, 3)},
        "weights": {"weights": ("w", "v")},
        "code": {"commit": ("a" * 40, "b" * 40)},
        "versions": {"torch": ("2.6", "2.7")},
        "machine": {"threads": (1, 2)},
        "parameters": {"adapter": (100, 50)},
    }


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({"seed": 1}, r"^two different runs: they differ in seed, so they are expected to differ"),
        ({"config": CONFIG | {"optimizer": {"lr": 2e-3}}}, r"differ in optimizer.lr, so they are expected"),
        ({"hashes": HASHES | {"data": "e"}}, r"differ in data, so"),
        (
            {"machine": MACHINE | {"threads": 2}},
            r"^the same run, made differently: threads \(1 and 2\): threads",
        ),
        ({"machine": MACHINE | {"cpu": "k"}}, r"made differently: cpu \(c and k\)"),
        ({"versions": VERSIONS | {"torch": "2.7"}}, r"made differently: versions of torch: other versions"),
        ({"code": CODE | {"dirty": True}}, r"made differently: code"),
        ({}, r"^nothing that is recorded differs, yet the numbers do: nondeterminism"),
        ({"machine": MACHINE | {"memory_bytes": 16}}, r"^nothing that is recorded differs"),  # changes no number
        ({"versions": VERSIONS | {"wandb": "1"}}, r"^nothing that is recorded differs"),
    ],
)
def test_the_verdict_names_what_explains_other_numbers(pair, changes, verdict):
    left, right = pair(score=0.75, predictions=frame(flips=1), **changes)
    assert not diff_report(left, right).diff.identical
    with pytest.raises(AssertionError, match=verdict):
        raise AssertionError(diff_report(left, right).verdict)


def test_other_settings_without_an_effect_are_said_too(pair):
    assert (
        "although threads (1 and 2) differ: bit-identical"
        in diff_report(*pair(machine=MACHINE | {"threads": 2})).verdict
    )


def test_a_key_that_is_null_is_as_good_as_absent(pair):
    assert diff_report(*pair(config=CONFIG | {"start_from": None})).sections == {}


def test_where_the_outcomes_part(pair):
    left, right = pair(predictions=frame(logit=0.5, flips=3), tensor=torch.tensor([1.0, 2.5]))
    outcome = run_diff(left, right)
    assert not outcome.identical
    assert outcome.history_from is None
    assert (outcome.rows, outcome.predicted, outcome.predictions_from) == (8, 3, 2)
    assert (outcome.logits, outcome.tensors, outcome.difference) == (0.25, 0.5, 0.5)
    assert outcome.lines() == [
        "metrics: identical in every epoch",
        "predictions: 3 of 8 differ, the first at epoch 2; logits by 0.25",
        "trained tensors: differ by at most 0.5",
    ]


def test_metrics_part_at_the_first_epoch_that_differs(tmp_path):
    history = [{"epoch": 1, "accuracy": 0.5, "loss": math.nan}, {"epoch": 2, "accuracy": 0.5, "loss": 0.25}]
    other = [history[0], history[1] | {"loss": 0.75}]
    metrics = [{"headline": "accuracy", "history": h, "best": h[0], "last": h[1]} for h in (history, other)]
    left, right = (run(tmp_path / str(n), metrics=m) for n, m in enumerate(metrics))
    outcome = run_diff(left, right)
    assert outcome.history_from == 2
    assert outcome.largest == {"accuracy": 0, "epoch": 0, "loss": 0.5}
    shorter = run(tmp_path / "3", metrics=metrics[0] | {"history": history[:1]})
    assert run_diff(left, shorter).history_from == 2


def test_one_bit_is_enough(tmp_path):
    first = torch.tensor([1.0, 2.0])
    last = torch.nextafter(first, torch.tensor(3.0))
    outcome = run_diff(run(tmp_path / "1", tensor=first), run(tmp_path / "2", tensor=last))
    assert not outcome.identical
    assert 0 < outcome.tensors < 1e-6
    nans = [torch.tensor([1.0, math.nan])] * 2
    assert run_diff(*(run(tmp_path / f"n{n}", tensor=tensor) for n, tensor in enumerate(nans))).identical


def test_predictions_of_other_examples_are_not_compared(pair):
    outcome = run_diff(*pair(predictions=frame().assign(label=0)))
    assert outcome.rows == 0
    assert "predictions: not of the same examples" in outcome.lines()


def test_without_predictions_the_metrics_are_compared(pair):
    left, right = pair()
    (right.folder / "predictions.parquet").unlink()
    outcome = run_diff(left, read_run(right.folder))
    assert outcome.identical
    assert "predictions" not in outcome.compared


# A summary of a report


@pytest.fixture
def results(tmp_path):
    """A results folder with a report of two runs, one of which starts from a third."""
    folder = tmp_path / "results"
    run(folder, "b" * 16, seed=1, config=CONFIG | {"seed": 1})
    run(folder, "a" * 16, hashes=HASHES | {"parent": "c" * 16}, reason="x")
    run(folder, "c" * 16, seed=2, config=CONFIG | {"seed": 2})
    report = folder / "reports" / "r"
    report.mkdir(parents=True)
    pd.DataFrame({"run_id": ["b" * 16, "a" * 16, None]}).to_csv(report / "runs.csv")
    return folder


def test_a_summary_gives_the_records_back_without_paths(results, tmp_path):
    file = tmp_path / "docs" / "records.jsonl.gz"
    write_archive(runs_of_report(results / "reports" / "r"), file)
    runs = read_archive(file)
    assert list(runs) == ["b" * 16, "a" * 16, "c" * 16]  # the parent comes along
    for run_id, again in runs.items():
        original = read_run(results / "runs" / run_id)
        assert diff_report(original, again).diff.identical
        assert diff_report(original, again).sections == {}
        assert {"predictions", "trained tensors"} < set(diff_report(original, again).diff.compared)
        assert "paths" not in again.record.config
        assert again.record.cost == original.record.cost
    assert b"/somewhere" not in gzip.decompress(file.read_bytes())


def test_a_summary_sees_a_changed_prediction(results, tmp_path):
    write_archive(runs_of_report(results / "reports" / "r"), tmp_path / "records.jsonl.gz")
    again = run(tmp_path / "x", "b" * 16, seed=1, config=CONFIG | {"seed": 1}, predictions=frame(flips=1))
    assert not run_diff(read_archive(tmp_path / "records.jsonl.gz")["b" * 16], again).identical


def test_runs_are_found_in_folders_reports_and_summaries(results, tmp_path):
    write_archive(runs_of_report(results / "reports" / "r"), tmp_path / "records.jsonl.gz")
    for place in (results, results / "reports" / "r", tmp_path / "records.jsonl.gz", tmp_path):
        assert set(recorded_in(place)) == {"a" * 16, "b" * 16, "c" * 16}
    for query, place in (
        (str(results / "runs" / ("a" * 16)), tmp_path),
        ("aaa", results),
        ("aaa", tmp_path / "records.jsonl.gz"),
    ):
        assert find_recorded(query, location=place).record.run_id == "a" * 16


@pytest.mark.parametrize("query", ["zzz", ""])
def test_an_unknown_or_ambiguous_run_is_named(results, query):
    with pytest.raises(ValueError, match=r"no folder with a record.json, nor the id|begins the ids of 3 runs"):
        find_run(query, results_dir=results)


def test_what_is_no_summary_and_no_results_folder_is_named(tmp_path):
    (tmp_path / "x.json").write_text('{"version": 99}')
    (tmp_path / "y.gz").write_bytes(gzip.compress(b'{"version": 99}'))
    with pytest.raises(ValueError, match=r"x.json is no archive of records: BadGzipFile: Not a gzipped file"):
        read_archive(tmp_path / "x.json")
    with pytest.raises(ValueError, match=r"y.gz is no archive of records: KeyError: 'digests'"):
        read_archive(tmp_path / "y.gz")
    with pytest.raises(ValueError, match="neither a folder of a report"):
        recorded_in(tmp_path)


# The command


def test_the_command_prints_sections_and_verdict(tmp_path, capsys):
    run(tmp_path, "a" * 16)
    run(tmp_path, "b" * 16, seed=1, score=0.625, predictions=frame(flips=1))
    assert main(["aaaa", "bbbb", "--results-dir", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    for text in ("seed", "0.5 (epoch 1)", "0.625 (epoch 1)", "+0.125", "1 of 8 differ, the first at epoch 2"):
        assert text in out
    assert "expected to differ" in out


def test_the_command_fails_in_one_line(tmp_path, capsys):
    assert main(["x", "y", "--results-dir", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("error: x is no folder with a record.json")
