"""Score against cost: a panel per model and task, a line per method, error bars over seeds."""

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from xlora_bench.results.axes import Axes, Key, keys, ordered
from xlora_bench.results.statistics import summarise

if TYPE_CHECKING:
    from matplotlib.axes import Axes as Panel

FIGURES = {
    "score_vs_parameters": ("parameters/trainable", "trainable parameters, head included"),
    "score_vs_rank": ("adapter.rank", "rank"),
}
"""File name -> the column on the horizontal axis and its label."""
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's colours, told apart by the colour-blind; without the yellow, which is lost on white."""
MARKERS = "osD^vPX*<>"
STYLES = ("-", "--", ":")
DODGE = {"score_vs_parameters": 0.05, "score_vs_rank": 0.2}
"""Decades over which methods at one place are spread sideways: error bars must not hide each other."""


def write_figures(frame: pd.DataFrame, folder: str | Path, *, axes: Axes, labels: dict[str, str]) -> list[Path]:
    """Write the figures of a tidy frame as PNG and SVG, return their paths; `labels` renames values of rows.

    A figure without a single point (no numeric rank, say) is not written.
    """
    written = []
    for name, (column, label) in FIGURES.items():
        points = _points(frame, axes, column)
        if not points.empty:
            written += _write(points, Path(folder) / name, label=label, score=_score(frame), labels=labels)
    return written


def _points(frame: pd.DataFrame, axes: Axes, column: str) -> pd.DataFrame:
    """Return `panel`, `method`, `x`, `mean`, `std` of the groups that have a score and a place on x."""
    panels = [name for name in axes.columns if name != "adapter.rank"]
    place = {
        "panel": pd.Series(keys(frame, panels), index=frame.index, dtype=object),
        "method": pd.Series(keys(frame, axes.rows), index=frame.index, dtype=object),
        "rank": pd.Series(keys(frame, ["adapter.rank"]), index=frame.index, dtype=object),
        "x": pd.to_numeric(frame[column], errors="coerce") if column in frame else math.nan,
    }
    groups = summarise(frame.assign(**place), ["panel", "method", "rank", "x"], "score")
    return groups[(groups["n"] > 0) & (groups["x"] > 0)].reset_index(drop=True)


def _score(frame: pd.DataFrame) -> str:
    return f"{', '.join(map(str, frame['headline'].dropna().unique()))} (best epoch)"


def _write(points: pd.DataFrame, path: Path, *, label: str, score: str, labels: dict[str, str]) -> list[Path]:
    from matplotlib import rc_context  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    panels, methods = ordered(points["panel"]), ordered(points["method"])
    width = min(len(panels), 3)
    height = math.ceil(len(panels) / width)
    figure = Figure(figsize=(3.6 * width + 2.4, 3.2 * height), layout="constrained")
    grid = figure.subplots(height, width, squeeze=False, sharex=True)
    for panel, drawn in zip(panels, grid.flat, strict=False):
        _draw(drawn, points[points["panel"] == panel], methods, labels=labels, dodge=DODGE[path.name])
        _set_ticks(drawn, points["x"])
        drawn.set_title(_text(panel, {}), fontsize=10)
    for drawn in grid.flat[len(panels) :]:
        drawn.set_axis_off()
    figure.supxlabel(label, fontsize=10)
    figure.supylabel(score, fontsize=10)
    handles = {
        text: handle for drawn in grid.flat for handle, text in zip(*drawn.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="outside right upper", frameon=False, fontsize=9)
    with rc_context({"svg.hashsalt": path.name}):  # the same points give the same file
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
        panel.errorbar(
            line["x"] * 10 ** (dodge * ((index + 0.5) / len(methods) - 0.5)),
            line["mean"],
            yerr=line["std"].fillna(0.0),
            label=_text(method, labels),
            color=COLOURS[index % len(COLOURS)],
            linestyle=STYLES[index // len(COLOURS) % len(STYLES)],
            marker=MARKERS[index % len(MARKERS)],
            markersize=5,
            linewidth=1.2,
            capsize=2.5,
        )
    panel.grid(alpha=0.25, linewidth=0.6)
    panel.spines[["top", "right"]].set_visible(False)


def _set_ticks(panel: "Panel", values: pd.Series) -> None:
    """Label every value if they are few and apart, else round numbers."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator  # noqa: PLC0415

    ticks = sorted(values.unique())
    apart = all(right / left > 1.4 for left, right in pairwise(ticks))
    if len(ticks) <= 8 and apart:
        panel.xaxis.set_major_locator(FixedLocator(ticks))
    else:
        wide = ticks[-1] / ticks[0] > 4
        panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)) if wide else MaxNLocator(4))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))


def _text(key: Key, labels: dict[str, str]) -> str:
    return " · ".join(labels.get(str(value), str(value)) for value in key)


def _short(value: float) -> str:
    for limit, unit in ((1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.3g}{unit}"
    return f"{value:g}"
