"""Figures of score against cost: one panel per model and task, one line per method, error bars over seeds."""

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from xlora_bench.results.frame.method_names import method_name
from xlora_bench.results.frame.pivot_axes import Key, PivotAxes, keys, ordered
from xlora_bench.results.statistics import summarise
from xlora_bench.system.escape import figure as figure_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes as Panel

FIGURES = {
    "score_vs_parameters": ("parameters/trainable", "trainable parameters, head included"),
    "score_vs_rank": ("adapter.rank", "rank"),
    "score_vs_time": ("cost/train_seconds", "training time, seconds"),
    "score_vs_memory": ("cost/peak_memory_bytes", "peak memory, bytes"),
}
"""By file name: the column on the horizontal axis, and its label."""
COSTS = ("score_vs_parameters", "score_vs_time", "score_vs_memory")
"""Figures against a cost; they show the Pareto front."""
NOTES = ("hollow: some runs\ncollapsed or failed", "Pareto front\nof the means")
"""Legend entries besides the methods."""
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's colours for colour-blind readers, without yellow, which is not visible on white."""
MARKERS = "osD^vPX*<>"
STYLES = ("-", "--", ":")
DODGE = {"score_vs_parameters": 0.05, "score_vs_rank": 0.2, "score_vs_time": 0.0, "score_vs_memory": 0.0}
"""Horizontal spread (in decades) of methods with equal x, so that their error bars do not overlap."""


def write_figures(frame: pd.DataFrame, folder: str | Path, *, axes: PivotAxes, labels: dict[str, str]) -> list[Path]:
    """Write the figures of a tidy frame as PNG and SVG; return their paths. `labels` renames row values.

    A figure without any point, for instance without a numeric rank, is not written.
    """
    written = []
    for name, (column, label) in FIGURES.items():
        points = _points(frame, axes, column)
        if not points.empty:
            written += _write(points, Path(folder) / name, label=label, score=_score(frame), labels=labels)
    return written


def _points(frame: pd.DataFrame, axes: PivotAxes, column: str) -> pd.DataFrame:
    """Return `panel`, `method`, `rank`, `x`, `x_std`, `mean`, `std`, `bad`, `front` of groups with a score and an x.

    A group has the runs that differ only in the seed; `x` is its mean cost. `bad` counts collapsed or failed runs; a
    group with any is drawn hollow and is never on the Pareto front.
    """
    panels = [name for name in axes.columns if name != "adapter.rank"]
    names = {"panel": panels, "method": axes.rows, "rank": ["adapter.rank"]}
    group_keys = {name: pd.Series(keys(frame, of), index=frame.index, dtype=object) for name, of in names.items()}
    cost = pd.to_numeric(frame[column], errors="coerce") if column in frame else math.nan
    placed = frame.assign(**group_keys, x=cost)
    done = placed[(placed["status"] == "completed") & placed["score"].notna()]
    costs = done.groupby(list(names), dropna=False, sort=False)["x"].agg(x="mean", x_std="std").reset_index()
    groups = summarise(placed, list(names), "score").merge(costs, on=list(names), how="left")
    groups["bad"] = groups["n_collapsed"] + groups["n_failed"]
    points = groups[(groups["n"] > 0) & (groups["x"] > 0)].reset_index(drop=True)
    return points.assign(front=pareto_front(points))


def pareto_front(points: pd.DataFrame) -> pd.Series:
    """Return the mask of the Pareto front of each panel, by mean cost `x` and mean score `mean`; spread is ignored.

    A point is on the front if no other has `x` at most as large and a higher `mean`, or a smaller `x` and an equal
    `mean`. Points with `bad > 0` are left out.
    """
    front: set[int] = set()
    for _, panel in points[points["bad"] == 0].groupby("panel", sort=False):
        ranked = panel.sort_values(["x", "mean"], ascending=[True, False])
        best = ranked["mean"].cummax().shift(fill_value=-math.inf)
        front |= set(ranked.index[ranked["mean"] > best])
    return pd.Series(points.index.isin(front), index=points.index)


def _score(frame: pd.DataFrame) -> str:
    return f"{', '.join(map(str, frame['headline'].dropna().unique()))} ({frame.attrs.get('selection', 'best')} epoch)"


def _write(points: pd.DataFrame, path: Path, *, label: str, score: str, labels: dict[str, str]) -> list[Path]:
    panels, methods = ordered(points["panel"]), ordered(points["method"])
    width = min(len(panels), 3)
    height = math.ceil(len(panels) / width)
    figure = Figure(figsize=(3.6 * width + 2.4, 3.2 * height), layout="constrained")
    grid = figure.subplots(height, width, squeeze=False, sharex=True)
    for panel_key, panel in zip(panels, grid.flat, strict=False):
        _draw(panel, points[points["panel"] == panel_key], methods, labels=labels, dodge=DODGE[path.name])
        if path.name in COSTS:
            _draw_front(panel, points[points["panel"] == panel_key])
        _set_ticks(panel, points["x"])
        panel.set_title(figure_text(method_name(panel_key)), fontsize=10)
    for panel in grid.flat[len(panels) :]:
        panel.set_axis_off()
    figure.supxlabel(label, fontsize=10)
    figure.supylabel(figure_text(score), fontsize=10)
    handles = {
        text: handle for panel in grid.flat for handle, text in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    handles = dict(sorted(handles.items(), key=lambda item: item[0] in NOTES))  # methods first
    figure.legend(handles.values(), handles.keys(), loc="outside right upper", frameon=False, fontsize=9)
    return save(figure, path)


def save(figure: Figure, path: Path) -> list[Path]:
    """Write a figure as PNG and SVG, the same bytes for the same figure; return the paths."""
    with rc_context({"svg.hashsalt": path.name}):
        figure.savefig(path.with_suffix(".png"), dpi=200)
        figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
    return [path.with_suffix(".png"), path.with_suffix(".svg")]


def _draw(
    panel: "Panel", points: pd.DataFrame, methods: Sequence[Key], *, labels: dict[str, str], dodge: float
) -> None:
    panel.set_xscale("log")
    for index, method in enumerate(methods):
        line = points[points["method"] == method].sort_values("x")
        if line.empty:
            continue
        at = line["x"] * 10 ** (dodge * ((index + 0.5) / len(methods) - 0.5))
        look = look_of(index)
        panel.errorbar(
            at,
            line["mean"],
            yerr=line["std"].fillna(0.0),
            xerr=line["x_std"].fillna(0.0) if (line["x_std"] > 0).any() else None,
            label=figure_text(method_name(method, labels)),
            linestyle=style_of(index),
            linewidth=1.2,
            capsize=2.5,
            **look,
        )
        bad = line["bad"] > 0
        panel.plot(at[bad], line["mean"][bad], linestyle="", markerfacecolor="white", zorder=4, **look)
        if bad.any():
            panel.plot([], [], linestyle="", marker="o", color="#666666", markerfacecolor="white", label=NOTES[0])
    panel.grid(alpha=0.25, linewidth=0.6)
    panel.spines[["top", "right"]].set_visible(False)


def _draw_front(panel: "Panel", points: pd.DataFrame) -> None:
    """Draw the Pareto front (best mean score up to each cost) as a step line behind the points."""
    front = points[points["front"]].sort_values("x")
    if len(points) > 1 and not front.empty:
        end = max(points["x"].max(), front["x"].iloc[-1])
        panel.plot(
            [*front["x"], end],
            [*front["mean"], front["mean"].iloc[-1]],
            drawstyle="steps-post",
            color="#999999",
            linewidth=5,
            alpha=0.35,
            solid_capstyle="butt",
            label=NOTES[1],
            zorder=0,
        )


def _set_ticks(panel: "Panel", values: pd.Series) -> None:
    """Set a tick at every value if there are at most 8 and they are well apart, else at round numbers."""
    ticks = sorted(values.unique())
    apart = all(right / left > 1.4 for left, right in pairwise(ticks))
    if len(ticks) <= 8 and apart:
        panel.xaxis.set_major_locator(FixedLocator(ticks))
    else:
        wide = ticks[-1] / ticks[0] > 4
        subs = (1, 2, 5) if ticks[-1] / ticks[0] < 200 else (1,)
        panel.xaxis.set_major_locator(LogLocator(subs=subs) if wide else MaxNLocator(4))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))


def look_of(number: int) -> dict[str, Any]:
    """Return colour and marker of the method with index `number`."""
    return {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)], "markersize": 5}


def style_of(number: int) -> str:
    """Return the line style of the method with index `number`; it changes when the colours repeat."""
    return STYLES[number // len(COLOURS) % len(STYLES)]


def _short(value: float) -> str:
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.3g}{unit}"
    return f"{value:g}"
