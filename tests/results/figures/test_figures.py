import logging
import re
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from tests.helpers.records import grid
from xlora_bench.results.figures import style
from xlora_bench.results.figures.figures import FIGURES as FIGURES_BY_NAME
from xlora_bench.results.figures.figures import NO_MEMORY, _Figure, _points, pareto_front
from xlora_bench.results.figures.style import side_by_side
from xlora_bench.results.frame.collect import MEMORY
from xlora_bench.results.frame.pivot_axes import PivotAxes, find_pivot_axes
from xlora_bench.results.reports.report import write_report

pytestmark = pytest.mark.slow

PARAMETERS, RANKED = "score_vs_parameters.svg", "ranked_differences.svg"
AGAINST = ("parameters", "rank", "time", "memory")
KINDS = ("png", "svg", "pdf")
FIGURES = {f"score_vs_{what}.{kind}" for what in AGAINST for kind in KINDS}
TABLES = {"table.md", "table.csv", "table.tex", "runs.csv", "report.html"}
COMPARISON = {"comparison.md", "comparison.csv", *(f"ranked_differences.{kind}" for kind in KINDS)}


@pytest.fixture
def frame(tmp_path):
    some = [
        {"adapter": adapter, "rank": rank, "seed": seed, "score": 0.5 + seed / 100 + rank / 100}
        for adapter in ("lora", "lu")
        for rank in (2, 8)
        for seed in (0, 1)
    ]
    frame = grid(tmp_path / "results", some)
    return frame.assign(**{MEMORY: frame["adapter.rank"] * 2.5e8})


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


def texts_of(path):
    """The texts of an SVG file."""
    return re.findall("<!-- (.*) -->", path.read_text())


def test_panels_without_a_score_say_why(tmp_path):
    runs = [{"task": "sst2"}, *({"task": "cola", "seed": s, "status": "collapsed"} for s in range(3))]
    write_report(grid(tmp_path / "results", runs), tmp_path / "r", title="t")
    assert {"sst2: accuracy", "cola: accuracy", "no score: 3 collapsed"} <= set(texts_of(tmp_path / "r" / PARAMETERS))
    write_report(grid(tmp_path / "bad", [{"status": "collapsed"}]), tmp_path / "all", title="t")
    assert "no score: 1 collapsed" in texts_of(tmp_path / "all" / PARAMETERS)
    assert (tmp_path / "all" / "table.md").exists()


def test_each_panel_has_its_own_metric(frame, tmp_path):
    other = frame.assign(task="stsb", headline="pearson", run_id=frame["run_id"] + "b")
    write_report(pd.concat([frame, other], ignore_index=True), tmp_path / "r", title="t")
    for name in (PARAMETERS, "score_vs_rank.svg"):
        assert {"sst2: accuracy", "stsb: pearson"} <= set(texts_of(tmp_path / "r" / name))
    assert {"stsb, rank 2: pearson", "sst2, rank 8: accuracy"} <= set(texts_of(tmp_path / "r" / RANKED))


def test_memory_is_in_megabytes_and_only_that_of_a_run(frame, tmp_path):
    write_report(frame, tmp_path / "gpu", title="t")
    shown = texts_of(tmp_path / "gpu" / "score_vs_memory.svg")
    assert {"peak memory of the GPU, MB", "500", "2000"} <= set(shown)
    assert NO_MEMORY not in (tmp_path / "gpu" / "table.md").read_text()
    write_report(frame.assign(**{MEMORY: None}), tmp_path / "cpu", title="t")
    assert not list((tmp_path / "cpu").glob("score_vs_memory*"))
    assert NO_MEMORY in (tmp_path / "cpu" / "table.md").read_text()


def test_cpu_time_has_a_figure_where_it_is_known(frame, tmp_path):
    write_report(frame.assign(**{"cost/cpu_seconds": 7.0}), tmp_path / "r", title="t")
    assert "training time, CPU seconds of all threads" in texts_of(tmp_path / "r" / "score_vs_cpu_time.svg")


def many(methods, ranks=(8,), name="method {}"):
    """A frame without records: `methods` methods at `ranks` on two tasks, three seeds."""
    runs = [
        {"adapter": name.format(m), "task": task, "adapter.rank": rank, "seed": seed}
        for m in range(methods)
        for task in ("sst2", "a_task_with_a_long_name_" * 3)
        for rank in ranks
        for seed in range(3)
    ]
    frame = pd.DataFrame(runs)
    scores = np.random.default_rng(0).uniform(0.9, 1.0, len(frame))
    return frame.assign(score=scores, status="completed", headline="accuracy", **{"parameters/trainable": 10_000})


@pytest.mark.parametrize(
    ("frame", "name"),
    [
        (many(50), "score_vs_parameters"),
        (many(3, ranks=(1, 2, 3, 4, 8, 16, 32, 48, 64, 128)), "score_vs_rank"),
        (many(4, name="a method " * 20 + "{}"), "score_vs_parameters"),
    ],
    ids=["50 methods", "10 ranks", "long names"],
)
def test_text_is_readable_in_a_column_and_labels_do_not_overlap(frame, name):
    axes = PivotAxes(rows=("adapter",), columns=("task", "adapter.rank"))
    drawn = _Figure(_points(frame, axes, FIGURES_BY_NAME[name].column), FIGURES_BY_NAME[name], axes=axes, labels={})
    figure = drawn.draw()
    assert figure.get_figwidth() == pytest.approx(84 / 25.4)
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    hidden = {
        tick.label1
        for panel in figure.axes
        for axis in (panel.xaxis, panel.yaxis)
        for tick in axis.get_major_ticks()
        if not axis.get_view_interval()[0] <= tick.get_loc() <= axis.get_view_interval()[1]
    }
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    shown = [text for text in texts if text not in hidden]
    assert all(text.get_fontsize() >= 6 for text in shown)
    boxes = [text.get_window_extent(renderer) for text in shown]
    for number, box in enumerate(boxes):
        assert figure.bbox.x0 <= box.x0
        assert box.x1 <= figure.bbox.x1, shown[number]
        for other, text in zip(boxes[number + 1 :], shown[number + 1 :], strict=True):
            assert box.width * other.width == 0 or not box.shrunk(0.98, 0.7).overlaps(other), (shown[number], text)
    for bars in (line for panel in figure.axes for line in panel.collections):
        ends = [y for segment in bars.get_segments() for _, y in segment]
        assert 0 <= min(ends) <= max(ends) <= 1


def test_of_many_methods_the_best_are_drawn_and_the_others_counted():
    frame = many(50)
    frame["score"] = 0.5 + frame["adapter"].str.split().str[-1].astype(float) / 100
    axes = PivotAxes(rows=("adapter",), columns=("task",))
    cost = FIGURES_BY_NAME["score_vs_parameters"]
    figure = _Figure(_points(frame, axes, cost.column), cost, axes=axes, labels={}).draw()
    names = [text.get_text().replace("\n", " ") for text in figure.legends[0].get_texts()]
    assert names[:14] == [f"method {number}" for number in range(36, 50)]
    assert names[14] == "36 more methods, see table.csv"


def test_points_at_equal_counts_are_side_by_side_and_nearer_to_their_own_count_than_to_another():
    counts = np.array([2.0, 8.0, 2.0, 8.0, 2.0, 5.0])
    moved = side_by_side(counts, step=2.5)
    assert len(set(moved)) == len(counts)
    for value in (2.0, 8.0):
        assert moved[counts == value].mean() == pytest.approx(value)
        assert list(moved[counts == value]) == sorted(moved[counts == value])
    assert moved[5] == 5.0
    assert np.abs(moved - counts).max() <= 3 / 4
    assert list(side_by_side(np.array([1.0, 2.0]), step=0.5)) == [1.0, 2.0]


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


def test_saving_a_figure_logs_nothing(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    figure = Figure()
    figure.text(0.1, 0.1, "text")
    style.save(figure, tmp_path / "f")
    assert caplog.records == []
