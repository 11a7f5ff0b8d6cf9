import pandas as pd
import pytest
from scipy import stats

from tests.helpers.records import grid
from xlora_bench.cli.table import main
from xlora_bench.results.comparison.build import compare
from xlora_bench.results.comparison.ranked_differences import (
    MOST_ROWS,
    _without_pair,
    kind_of,
    ranked,
    write_ranked_differences,
)
from xlora_bench.results.frame.pivot_axes import PivotAxes
from xlora_bench.results.reports.report import write_report

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path):
    runs = [
        {"adapter": adapter, "seed": seed, "score": score + 0.01 * seed}
        for adapter, score in (("lora", 0.5), ("lu", 0.7))
        for seed in range(3)
    ]
    grid(tmp_path, runs)
    return tmp_path


def text(folder):
    return (folder / "reports" / "all" / "comparison.md").read_text()


def test_a_report_has_its_comparison(folder):
    assert main([str(folder)]) == 0
    assert "compared with **lora**" in text(folder)
    assert "cannot be significant: 3 shared seeds, 6 are needed" in text(folder)
    assert "its predictions.parquet is not there" in text(folder)
    assert "best" in (folder / "reports" / "all" / "comparison.csv").read_text().splitlines()[0]


def test_the_reference_can_be_named(folder):
    assert main([str(folder), "--reference", "adapter=lu"]) == 0
    assert "compared with **lu**" in text(folder)


def test_no_interval_of_an_accuracy_leaves_its_range(tmp_path):
    runs = [
        {"adapter": adapter, "seed": seed, "score": score}
        for adapter, scores in (("lora", (0.0, 0.9, 0.1)), ("lu", (0.9, 1.0, 1.0)))
        for seed, score in enumerate(scores)
    ]
    write_report(grid(tmp_path, runs), tmp_path / "r", title="t")
    for name in ("table.csv", "comparison.csv"):
        rows = pd.read_csv(tmp_path / "r" / name)
        assert rows.filter(regex="^(interval|mean|difference)_high$").max().max() == 1
        assert rows.filter(regex="^(interval|mean)_low$").min().min() == 0


@pytest.mark.parametrize(
    ("reference", "message"), [("adapter=dora", "must fit exactly one method"), ("lora", "must be KEY=VALUE")]
)
def test_a_reference_that_is_not_there_is_named(folder, capsys, reference, message):
    assert main([str(folder), "--reference", reference]) == 1
    assert message in capsys.readouterr().err


def test_the_table_ends_with_a_sentence_per_column(tmp_path, capsys):
    runs = [
        {"adapter": adapter, "task": task, "seed": seed, "score": score}
        for task, best in (("rte", "lora"), ("sst2", "lu"))
        for adapter in ("lora", "lu")
        for seed in range(6)
        for score in [0.5 + 0.1 * (adapter == best) + 0.01 * seed]
    ]
    grid(tmp_path, runs)
    assert main([str(tmp_path)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "lora is significantly better than every other method (largest p = 0.0312)" in shown  # 2 / 2^6
    first, second = (f"{task}: {name} is sig" for task, name in (("rte", "lora"), ("sst2", "lu")))
    assert 0 < shown.index(first) < shown.index(second) < shown.index("Files: ")
    assert first not in (tmp_path / "reports" / "all" / "table.md").read_text()


def compared(**by_adapter):
    """The comparison of methods, from the scores of their seeds (None: collapsed)."""
    runs = [
        {"adapter": adapter, "seed": seed, "status": "collapsed" if score is None else "completed", "score": score}
        for adapter, scores in by_adapter.items()
        for seed, score in scores.items()
    ]
    frame = pd.DataFrame(runs).assign(headline="accuracy")
    return compare(frame, axes=PivotAxes(rows=("adapter",), columns=()), row_labels={})


def test_methods_are_ranked_by_their_mean_and_those_without_a_score_are_last():
    scores = dict(enumerate([0.5, 0.6, 0.55, 0.52, 0.58, 0.61]))
    better, alone = {seed: score + 0.2 for seed, score in scores.items()}, {99: 0.6}
    comparison = compared(vera={0: None, 1: None}, lora=scores, alone=alone, lu=better)
    (column,) = comparison.columns
    assert [line.method for line in ranked(column)] == [("lu",), ("alone",), ("lora",), ("vera",)]
    first, *rest = ranked(column)
    assert kind_of(first.pairwise).startswith("significant (Holm")  # one pair: p = 2 / 2^6
    assert [_without_pair(line) for line in rest] == [
        "no pair with the reference",
        "reference",
        "no score, 2 collapsed or failed",
    ]


def test_the_figure_of_ranked_differences_has_the_intervals_of_the_comparison(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr("xlora_bench.results.figures.style.save", lambda figure, path: drawn.append(figure) or [path])
    scores = {0: 0.5, 1: 0.6, 2: 0.55}
    comparison = compared(lora=scores, lu={seed: score + 0.1 * seed for seed, score in scores.items()})
    write_ranked_differences(comparison, tmp_path / "r")
    (panel,) = drawn[0].axes
    (segment,) = panel.collections[0].get_segments()
    expected = stats.ttest_1samp([0.0, 0.1, 0.2], 0.0).confidence_interval(0.95)
    assert [x for x, _ in segment] == pytest.approx([expected.low, expected.high])
    (point,) = [line for line in panel.lines if line.get_marker() == "o" and len(line.get_xdata())]
    assert point.get_xdata() == pytest.approx([0.1])
    assert point.get_markerfacecolor() == "white"


def test_of_many_methods_the_reference_is_always_shown():
    others = {f"m{number}": {0: 0.6 + number / 100, 1: 0.6} for number in range(30)}
    (column,) = compared(lora={0: 0.1, 1: 0.2}, **others).columns
    kept = [line.method for line in ranked(column)]
    assert len(kept) == MOST_ROWS
    assert kept[0] == ("m29",)
    assert kept[-1] == ("lora",)
