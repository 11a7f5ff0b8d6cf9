from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from tests.helpers.records import grid
from xlora_bench.results.figures.figures import _points, pareto_front
from xlora_bench.results.frame.pivot_axes import find_pivot_axes
from xlora_bench.results.reports.report import write_report

pytestmark = pytest.mark.slow

AGAINST = ("parameters", "rank", "time", "memory")
FIGURES = {f"score_vs_{what}.{kind}" for what in AGAINST for kind in ("png", "svg")}
TABLES = {"table.md", "table.csv", "table.tex", "runs.csv"}
COMPARISON = {"comparison.md", "comparison.csv"}


@pytest.fixture
def frame(tmp_path):
    some = [
        {"adapter": adapter, "rank": rank, "seed": seed, "score": 0.5 + seed / 100 + rank / 100}
        for adapter in ("lora", "lu")
        for rank in (2, 8)
        for seed in (0, 1)
    ]
    return grid(tmp_path / "results", some).assign(**{"cost/peak_memory_bytes": 5e8})


def test_a_report_is_complete_and_the_same_twice(frame, tmp_path):
    for name in ("first", "second"):
        write_report(frame, tmp_path / name, title="t")
    assert {path.name for path in (tmp_path / "first").iterdir()} == FIGURES | TABLES | COMPARISON
    for name in FIGURES | TABLES | COMPARISON:
        first, second = (tmp_path / folder / name for folder in ("first", "second"))
        assert first.read_bytes() == second.read_bytes(), name


def test_figures_and_table_show_no_trial(frame, tmp_path):
    kinds = [frame.assign(tuning=kind) for kind in ("trial", "fixed", "tuned")]
    write_report(pd.concat(kinds, ignore_index=True), tmp_path / "r", title="t")
    for name in ("score_vs_time.svg", "table.md"):
        text = (tmp_path / "r" / name).read_text()
        assert [word for word in ("trial", "fixed", "tuned") if word in text] == ["fixed", "tuned"]


def test_the_figures_are_pictures(frame, tmp_path):
    write_report(frame, tmp_path / "r", title="t")
    assert (tmp_path / "r" / "score_vs_rank.png").read_bytes().startswith(b"\x89PNG")
    assert ElementTree.parse(tmp_path / "r" / "score_vs_rank.svg").getroot().tag.endswith("svg")


def test_without_a_numeric_rank_there_is_no_figure_against_it(tmp_path):
    write_report(
        grid(tmp_path / "results", [{"rank": 8}]).assign(**{"adapter.rank": "auto"}),
        tmp_path / "r",
        title="t",
    )
    assert not list((tmp_path / "r").glob("score_vs_rank.*"))
    assert list((tmp_path / "r").glob("score_vs_parameters.*"))


def test_only_bad_runs_still_give_a_table(tmp_path):
    write_report(grid(tmp_path / "results", [{"status": "collapsed"}]), tmp_path / "r", title="t")
    assert {path.name for path in (tmp_path / "r").iterdir()} == TABLES


def test_a_figure_that_fails_is_a_warning(frame, tmp_path, monkeypatch, caplog):
    def broken(*_, **__):
        raise RuntimeError("no fonts")

    monkeypatch.setattr("xlora_bench.results.reports.report.write_figures", broken)
    write_report(frame, tmp_path / "r", title="t")
    assert "no fonts" in caplog.text
    assert (tmp_path / "r" / "table.md").exists()


def test_an_unwritable_folder_is_a_clear_error(frame, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot be written"):
        write_report(frame, tmp_path / "file" / "r", title="t")


# The Pareto front


def points(*rows):
    """One panel of (x, mean, bad)."""
    frame = pd.DataFrame(rows, columns=["x", "mean", "bad"])
    return frame.assign(panel=[("sst2",)] * len(frame))


@pytest.mark.parametrize(
    ("rows", "front"),
    [
        ([(1, 0.5, 0), (2, 0.6, 0), (3, 0.55, 0)], [True, True, False]),  # dearer and worse
        ([(3, 0.9, 0), (1, 0.5, 0), (2, 0.7, 0)], [True, True, True]),  # in any order
        ([(1, 0.5, 0), (1, 0.6, 0)], [False, True]),  # as dear, worse
        ([(1, 0.5, 0), (2, 0.5, 0)], [True, False]),  # dearer, as good
        ([(1, 0.9, 1), (2, 0.5, 0)], [False, True]),  # the best only if one leaves out what collapsed
    ],
)
def test_the_front_is_what_no_other_beats(rows, front):
    assert list(pareto_front(points(*rows))) == front


def test_the_front_agrees_with_its_definition():
    generator = np.random.default_rng(0)
    frame = points(*((x, mean, 0) for x, mean in generator.integers(0, 12, (60, 2)))).drop_duplicates(["x", "mean"])
    beaten = [
        any(o.x <= p.x and o.mean >= p.mean and (o.x, o.mean) != (p.x, p.mean) for o in frame.itertuples())
        for p in frame.itertuples()
    ]
    assert list(pareto_front(frame)) == [not b for b in beaten]


def test_each_panel_has_its_front():
    frame = points((1, 0.9, 0), (2, 0.5, 0)).assign(panel=[("sst2",), ("mrpc",)])
    assert list(pareto_front(frame)) == [True, True]


def test_cost_and_score_of_a_point_are_means_over_its_seeds(tmp_path):
    runs = [
        {"seed": 0, "score": 0.5, "cost": {"train_seconds": 2.0}},
        {"seed": 1, "score": 0.7, "cost": {"train_seconds": 4.0}},
        {"seed": 2, "score": 0.1, "cost": {"train_seconds": 99.0}, "status": "collapsed"},
    ]
    frame = grid(tmp_path, runs).assign(**{"cost/train_seconds": [run["cost"]["train_seconds"] for run in runs]})
    (point,) = _points(frame, find_pivot_axes(frame), "cost/train_seconds").to_dict("records")
    assert (point["x"], point["mean"], point["n"], point["bad"], point["front"]) == (3.0, 0.6, 2, 1, False)
    assert point["x_std"] == pytest.approx(2**0.5)
