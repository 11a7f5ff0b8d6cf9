import logging

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tests.helpers.simulated_sweeps import lose, row, score, sweep, write
from xlora_bench.results.comparison import write_comparison
from xlora_bench.results.comparison.build import compare, find_reference
from xlora_bench.results.comparison.diagram import write_diagram
from xlora_bench.results.frame.pivot_axes import PivotAxes, find_pivot_axes

pytestmark = pytest.mark.slow

EFFECTS = {"head": -1.5, "lora": 0.0, "full": 1.0, "lu": 0.0}


def compared(frame, folder=None, **known):
    return compare(frame, axes=find_pivot_axes(frame), row_labels={}, results_dir=folder, **known)


def lines(comparison, column=0):
    return {line.method[0]: line for line in comparison.columns[column].lines}


@pytest.fixture(scope="module")
def one_task(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    return sweep(folder, EFFECTS), folder


@pytest.fixture(scope="module")
def found(one_task):
    return compared(*one_task)


def scores(frame, adapter):
    return frame[frame["adapter"] == adapter].sort_values("seed")["score"].to_numpy()


def test_numbers_are_those_of_scipy(one_task, found):
    frame, _ = one_task
    full, lora = scores(frame, "full"), scores(frame, "lora")
    line = lines(found)["full"]
    assert line.mean == pytest.approx(full.mean())
    expected = stats.ttest_rel(full, lora).confidence_interval()
    assert (line.pairwise.interval.low, line.pairwise.interval.high) == pytest.approx((expected.low, expected.high))
    assert line.pairwise.p == pytest.approx(2 / 2**6)
    assert line.pairwise.p_holm == pytest.approx(3 * 2 / 2**6)
    assert line.pairwise.p_max_t == pytest.approx(2 / 2**6)


def test_verdicts(found):
    verdicts = {name: line.verdict for name, line in lines(found).items()}
    assert verdicts["lora"] == "reference"
    assert verdicts["full"] == "significant: better"
    assert verdicts["head"] == "significant: worse"
    assert verdicts["lu"].startswith("not significant: would need ")
    assert found.columns[0].best == ("full",)


def test_the_examples_are_those_of_the_reported_epoch_and_main_split(found):
    by_example = lines(found)["full"].pairwise.by_example
    assert by_example.these_runs.n == 200
    assert by_example.these_runs.estimate == pytest.approx(lines(found)["full"].pairwise.difference, abs=1e-9)
    assert by_example.seeds_and_examples.low > 0
    assert lines(found)["full"].pairwise.mcnemar < 0.001
    assert found.columns[0].notes == []


def test_a_difference_that_needs_these_very_examples_says_so(tmp_path):
    labels, rows = np.tile([0, 1], 10), []
    for adapter, wrong in (("lora", 4), ("lu", 3)):  # one example more, the same one for every seed
        predicted = np.where(np.arange(20) < wrong, 1 - labels, labels)
        for seed in range(6):
            rows.append(row(f"{adapter}-{seed}", "sst2", adapter, seed, score("accuracy", predicted, labels)))
            write(tmp_path, f"{adapter}-{seed}", labels, predicted)
    frame = pd.DataFrame(rows)
    line = lines(compared(frame, tmp_path))["lu"]
    assert line.pairwise.p_max_t <= 0.05
    assert 0 in line.pairwise.by_example.seeds_and_examples
    assert line.verdict == "significant: better, but only on these examples"


def test_five_seeds_get_the_plain_verdict(one_task):
    frame, _ = one_task
    found = compared(frame[frame["seed"] < 5])
    assert {line.verdict for name, line in lines(found).items() if name != "lora"} == {
        "cannot be significant: 5 shared seeds, 6 are needed"
    }
    assert found.columns[0].best is None
    assert "cannot reach p <= 0.05" in found.columns[0].summary


def test_one_seed_has_a_difference_and_no_interval(one_task):
    frame, _ = one_task
    line = lines(compared(frame[frame["seed"] == 0]))["full"]
    assert (line.interval, line.pairwise.interval, line.pairwise.detectable) == (None, None, None)
    assert line.verdict == "cannot be significant: 1 shared seed, 6 are needed"


def test_a_collapsed_run_is_counted_and_neither_averaged_nor_paired(one_task):
    frame, folder = one_task
    found = compared(lose(frame, "sst2-full-3"), folder)
    line = lines(found)["full"]
    assert (line.n, line.failed, line.pairwise.pairs.seeds) == (5, 1, [0, 1, 2, 4, 5])
    assert line.mean == pytest.approx(np.delete(scores(frame, "full"), 3).mean())
    assert found.columns[0].notes == ["full: seed 3 is completed only for the reference, so no difference includes it."]


def test_runs_without_a_shared_seed_are_not_compared(one_task):
    frame, _ = one_task
    frame = frame.assign(seed=frame["seed"] + 100 * (frame["adapter"] == "full"))
    line = lines(compared(frame))["full"]
    assert line.pairwise is None
    assert line.verdict == "no pair: no seed is completed in both"
    assert line.interval is not None


def test_two_runs_with_one_seed_are_named(one_task):
    frame, _ = one_task
    found = compared(frame.assign(seed=0))
    assert found.columns == []
    assert "two runs with seed 0" in found.notes[0]


def test_without_predictions_the_runs_are_named_and_the_seeds_still_compared(tmp_path):
    frame = sweep(tmp_path, EFFECTS)
    (tmp_path / "runs" / "sst2-full-1" / "predictions.parquet").unlink()
    (tmp_path / "runs" / "sst2-lu-2" / "predictions.parquet").write_text("no parquet")
    frame.loc[frame["run_id"] == "sst2-head-0", "score"] += 0.01
    found = compared(frame, tmp_path)
    notes = found.columns[0].notes
    assert (
        "Not compared by example, its predictions.parquet is not there; rerun=true trains it again: sst2-full-1."
        in notes
    )
    assert any("cannot be read" in note and note.endswith("sst2-lu-2.") for note in notes)
    assert any("another accuracy than the score" in note and note.endswith("sst2-head-0.") for note in notes)
    assert lines(found)["full"].pairwise.by_example is not None  # on the other five seeds
    assert lines(found)["full"].pairwise.pairs.n == 6


def test_other_examples_are_not_compared(tmp_path):
    frame = sweep(tmp_path, {"lora": 0.0, "full": 1.0}, seeds=2)
    path = tmp_path / "runs" / "sst2-full-1" / "predictions.parquet"
    stored = pd.read_parquet(path)
    stored.assign(idx=stored["idx"] + 1).to_parquet(path)
    notes = compared(frame, tmp_path).columns[0].notes
    assert notes == [
        "Not compared by example, evaluated on other examples than the first run of the column: sst2-full-1."
    ]


def test_scores_of_two_half_splits_are_not_compared_by_example(one_task):
    frame, folder = one_task
    frame = frame.copy()
    frame.attrs["selection"] = "cross_split"
    assert "not those of one epoch" in compared(frame, folder).columns[0].notes[0]


def test_trials_are_left_out(one_task):
    frame, _ = one_task
    trials = frame.assign(tuning="trial", adapter="vera", seed=1000)
    both = pd.concat([frame.assign(tuning="fixed"), trials], ignore_index=True)
    assert "vera" not in lines(compare(both, axes=PivotAxes(rows=("adapter",), columns=()), row_labels={}))


def test_rows_of_one_index_are_told_apart(one_task, found):
    frame, folder = one_task
    same = compared(frame.set_index(pd.Index([0] * len(frame))), folder)
    assert lines(same)["full"].pairwise.p == lines(found)["full"].pairwise.p


def test_reference_is_lora_or_the_one_named(one_task):
    frame, _ = one_task
    assert compared(frame).reference == ("lora",)
    assert compared(frame, reference={"adapter": "full"}).reference == ("full",)
    with pytest.raises(ValueError, match=r"must fit exactly one method .*fits 0: adapter=head; adapter=lora"):
        compared(frame, reference={"adapter": "vera"})
    with pytest.raises(ValueError, match="fits 0"):
        compared(frame, reference={"model": "minilm"})


def test_reference_among_starts():
    names = ("adapter", "init_scheme")
    order = [("lora", "gaussian"), ("dora", "kaiming"), ("lora", "kaiming")]
    assert find_reference(order, names) == ("lora", "kaiming")
    assert find_reference(order[:2], names) == ("lora", "gaussian")
    assert find_reference([("x", "y"), ("z", "w")], names) == ("x", "y")
    with pytest.raises(ValueError, match="fits 2"):
        find_reference(order, names, {"adapter": "lora"})


def test_one_method_is_no_comparison(one_task, tmp_path):
    frame, _ = one_task
    only = frame[frame["adapter"] == "lora"]
    assert write_comparison(only, tmp_path, axes=find_pivot_axes(only), row_labels={}) is None
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("many")
    frame = sweep(folder, EFFECTS, tasks=("sst2", "cola", "stsb"), examples=120)
    frame = lose(frame, "cola-lu-0")
    labels = {"lora": "LoRA | ours"}
    write_comparison(frame, folder, axes=find_pivot_axes(frame), row_labels=labels, results_dir=folder)
    return folder


FIGURES = ("ranked_differences", "critical_difference")


def test_files(written):
    names = {path.name for path in written.iterdir() if path.is_file()}
    figures = (f"{name}.{kind}" for name in FIGURES for kind in ("png", "svg", "pdf"))
    assert names == {"comparison.md", "comparison.csv", *figures}
    assert "![Ranked differences](ranked_differences.png)" in (written / "comparison.md").read_text()
    assert (written / "critical_difference.png").stat().st_size > 10_000


def test_text_says_it_all(written):
    text = (written / "comparison.md").read_text()
    for phrase in (
        r"compared with **LoRA \| ours**",
        "five seeds cannot reach p < 0.05 (0.0625),\n  6 are needed",
        "## sst2",
        r"| LoRA \| ours | 6 | 0 |",
        "| **full** |",
        "1 of 6 (3% to 56%)",
        "lu: seed 0 is completed only for the reference",
        "full is significantly better than every other method (largest p = 0.0312).",
        "would be found with probability 80 %",
        "## Over tasks",
        "Friedman's test over 3 tasks: p = ",
        "![Critical-difference diagram](critical_difference.png)",
    ):
        assert phrase in text, phrase
    assert "nan" not in text
    assert all(line.count("|") - line.count(r"\|") == 12 for line in text.splitlines() if line.startswith("| **full**"))


def test_csv_has_a_row_per_task_and_method(written):
    rows = pd.read_csv(written / "comparison.csv")
    assert len(rows) == 3 * 4
    full = rows[(rows["task"] == "sst2") & (rows["adapter"] == "full")].iloc[0]
    assert full["p_sign_flip"] == 2 / 2**6
    assert full["difference_low"] < full["difference"] < full["difference_high"]
    assert full["best"]
    assert rows[rows["task"] == "stsb"]["p_mcnemar"].isna().all()


def test_a_diagram_that_cannot_be_drawn_is_only_a_warning(one_task, tmp_path, monkeypatch, caplog):
    frame = pd.concat([one_task[0].assign(task=task) for task in ("a", "b", "c")], ignore_index=True)

    def fail(*_, **__):
        raise RuntimeError("no display")

    monkeypatch.setattr("xlora_bench.results.comparison.write.write_diagram", fail)
    with caplog.at_level(logging.WARNING):
        write_comparison(frame, tmp_path, axes=find_pivot_axes(frame), row_labels={})
    assert "no display" in caplog.text
    assert "Critical-difference" not in (tmp_path / "comparison.md").read_text()


def test_the_bars_of_a_diagram_are_drawn_in_the_order_of_the_ranks(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr("xlora_bench.results.figures.style.save", lambda figure, _: drawn.append(figure) or [])
    names = [f"method {number}" for number in range(12)]
    ranks = pd.Series(np.arange(1.0, 13.0), index=names)
    close = np.abs(ranks.to_numpy()[:, None] - ranks.to_numpy()) < 9
    write_diagram(ranks, pd.DataFrame(np.where(close, 0.9, 0.01), names, names), tmp_path, tasks=5, distance=9.0)
    bars = [line.get_xdata().tolist() for line in drawn[0].axes[0].lines if len(line.get_xdata()) > 3]
    assert bars == [[float(rank) for rank in range(first, first + 9)] for first in range(1, 5)]
