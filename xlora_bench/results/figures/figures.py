"""Figures of score against cost: one panel per model and task, one line per method, standard deviations over seeds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from xlora_bench.results.figures import style
from xlora_bench.results.frame.collect import MEMORY
from xlora_bench.results.frame.method_names import column_label, method_name
from xlora_bench.results.frame.pivot_axes import Key, PivotAxes, keys, ordered
from xlora_bench.results.statistics import bounds_of, summarise
from xlora_bench.results.statistics.intervals import cut

if TYPE_CHECKING:
    from matplotlib.axes import Axes as Panel


@dataclass(frozen=True, kw_only=True)
class Cost:
    """A horizontal axis: a column of the frame, multiplied by `scale`, and its label.

    `counts` are the same for many methods: their points are put side by side, and the ticks are at the counts. A figure
    needs `least` different values.
    """

    column: str
    label: str
    scale: float = 1.0
    counts: bool = False
    front: bool = True
    least: int = 1


FIGURES = {
    "score_vs_parameters": Cost(
        column="parameters/trainable", label="trainable parameters, head included", counts=True
    ),
    "score_vs_rank": Cost(column="adapter.rank", label="rank", counts=True, front=False, least=2),
    "score_vs_time": Cost(column="cost/train_seconds", label="training time, wall-clock seconds"),
    "score_vs_cpu_time": Cost(column="cost/cpu_seconds", label="training time, CPU seconds of all threads"),
    "score_vs_memory": Cost(column=MEMORY, label="peak memory of the GPU, MB", scale=1e-6),
}
"""By file name. All but the rank are costs, and show the Pareto front."""
NO_MEMORY = (
    "No figure of score against memory: on a CPU the memory of a run is not known, because its process keeps what "
    "earlier runs left."
)
FRONT: dict[str, Any] = {"lw": 3, "color": style.GREY, "alpha": 0.35}
"""Look of the Pareto front."""
OTHERS: dict[str, Any] = {"marker": ".", "markersize": 3, "markeredgewidth": 0, "color": style.GREY}
"""Look of the methods that are not drawn one by one."""
LEFT = 0.42
"""Inches for the labels of a vertical axis."""


def write_figures(frame: pd.DataFrame, folder: str | Path, *, axes: PivotAxes, labels: Mapping[str, str]) -> list[Path]:
    """Write the figures of a tidy frame as PNG, SVG and PDF; return their paths. `labels` renames row values.

    A figure whose cost no run has, such as a numeric rank, is not written, nor one against a single rank.
    """
    selection = frame.attrs.get("selection", "best")
    written = []
    for name, cost in FIGURES.items():
        values = _numbers(frame, cost.column)
        if values[values > 0].nunique() >= cost.least:
            figure = _Figure(_points(frame, axes, cost.column), cost, axes=axes, labels=labels, selection=selection)
            written += style.save(figure.draw(), Path(folder) / name)
    return written


def figure_notes(frame: pd.DataFrame) -> list[str]:
    """Return notes on figures that a reader may miss."""
    done = frame[frame["status"] == "completed"]
    return [NO_MEMORY] if len(done) and not (_numbers(done, MEMORY) > 0).any() else []


def _numbers(frame: pd.DataFrame, column: str) -> pd.Series:
    values = frame[column] if column in frame else pd.Series(math.nan, index=frame.index)
    return pd.to_numeric(values, errors="coerce").astype(float)


def _points(frame: pd.DataFrame, axes: PivotAxes, column: str) -> pd.DataFrame:
    """Return `panel`, `method`, `rank`, `x`, `x_std`, `mean`, `std`, `n`, `bad`, `metrics`, `front` of each group.

    A group has the runs that differ only in the seed; `x` is its mean cost. `bad` counts collapsed or failed runs; a
    group with any is drawn hollow and is never on the Pareto front. A group without a score or a cost has NaN there.
    """
    columns = [name for name in axes.columns if name != "adapter.rank"]
    names = {"panel": columns, "method": axes.rows, "rank": ["adapter.rank"]}
    group_keys = {name: pd.Series(keys(frame, of), index=frame.index, dtype=object) for name, of in names.items()}
    runs = frame[["status", "score", "headline"]].assign(**group_keys, x=_numbers(frame, column))
    done = runs[(runs["status"] == "completed") & runs["score"].notna()]
    costs = done.groupby(list(names), dropna=False, sort=False)["x"].agg(x="mean", x_std="std").reset_index()
    groups = summarise(runs, list(names), "score").merge(costs, on=list(names), how="left")
    metrics = {panel: tuple(of_panel.dropna().unique()) for panel, of_panel in runs.groupby("panel")["headline"]}
    groups = groups.assign(metrics=groups["panel"].map(metrics), bad=groups["n_collapsed"] + groups["n_failed"])
    front = pareto_front(groups[(groups["n"] > 0) & (groups["x"] > 0)])
    return groups.assign(front=front.reindex(groups.index, fill_value=False))


def pareto_front(points: pd.DataFrame) -> pd.Series:
    """Return the mask of the Pareto front of each panel, by mean cost `x` and mean score `mean`; spread is ignored.

    A point is on the front if no other has `x` at most as large and a higher `mean`, or a smaller `x` and an equal
    `mean`. Points with `bad > 0` are left out.
    """
    front: set[int] = set()
    for _, panel in points[points["bad"] == 0].groupby("panel", sort=False):
        ranked = panel.sort_values(["x", "mean"], ascending=[True, False])
        best = ranked["mean"].astype(float).cummax().shift(fill_value=-math.inf)
        front |= set(ranked.index[ranked["mean"] > best])
    return pd.Series(points.index.isin(front), index=points.index)


def best_methods(scores: pd.DataFrame, value: str) -> list[Key]:
    """Return the at most `MOST_METHODS` methods with the best mean rank over panels by their best `value`."""
    best = scores.groupby(["panel", "method"], sort=False)[value].max().dropna().reset_index()
    ranks = best.groupby("panel", sort=False)[value].rank(ascending=False).groupby(best["method"], sort=False).mean()
    kept = set(ranks.nsmallest(style.MOST_METHODS).index)
    return [method for method in ordered(scores["method"]) if method in kept]


def method_handles(methods: Sequence[Key], labels: Mapping[str, str]) -> list[Line2D]:
    """Return the legend entries of `methods`."""
    names = [style.wrap(method_name(method, labels), 1.2) for method in methods]
    return [
        Line2D([], [], label=name, lw=0.8, ls=style.style_of(number), **style.look_of(number))
        for number, name in enumerate(names)
    ]


class _Figure:
    """One figure; the horizontal positions are logarithms to base 10."""

    def __init__(
        self, points: pd.DataFrame, cost: Cost, *, axes: PivotAxes, labels: Mapping[str, str], selection: str = "best"
    ) -> None:
        self.cost, self.axes, self.labels, self.selection = cost, axes, labels, selection
        self.panels = ordered(points["panel"])
        self.groups = points[points["panel"].isin(self.panels[: style.MOST_PANELS])]
        self.points = self.groups[(self.groups["n"] > 0) & (self.groups["x"] > 0)]
        self.points = self.points.assign(at=np.log10(self.points["x"] * cost.scale))
        self.methods = best_methods(self.points, "mean")
        self.columns = 1 if len(self.panels) <= 3 else 2
        self.inches = style.WIDTH / self.columns - LEFT - 0.06
        low, high = (self.points["at"].min(), self.points["at"].max()) if len(self.points) else (0.0, 0.0)
        margin = 0.08 * max(high - low, 0.3) + max(0.0, 0.3 - high + low) / 2
        self.limits = low - margin, high + margin

    def draw(self) -> Figure:
        """Return the figure."""
        panel_keys = self.panels[: style.MOST_PANELS]
        parts = {key: self.groups[self.groups["panel"] == key] for key in panel_keys}
        titles = [self._title(key, part) for key, part in parts.items()]
        height = 1.3 if self.columns == 1 else 0.95
        figure, panels = style.panels(
            titles, [height] * len(parts), columns=self.columns, left=LEFT, legend=self._legend()
        )
        for key, panel in zip(panel_keys, panels, strict=True):
            points = self.points[self.points["panel"] == key]
            panel.set_xlim(*self.limits)
            self._set_ticks(panel)
            if points.empty:
                text = without_score(parts[key])
                panel.text(0.5, 0.5, text, transform=panel.transAxes, ha="center", fontsize=style.SIZE)
                panel.set_yticks([])
            else:
                self._draw_points(panel, points)
        return figure

    def _title(self, key: Key, groups: pd.DataFrame) -> str:
        """Return the name of a panel, its metric, and the number of methods that have no point in it."""
        names = [name for name in self.axes.columns if name != "adapter.rank"]
        title = ": ".join(filter(None, (column_label(names, key), ", ".join(groups["metrics"].iloc[0]) or "score")))
        methods = set(groups["method"])
        empty = methods - set(self.points.loc[self.points["panel"] == key, "method"])
        few = f" ({len(empty)} of {len(methods)} methods without a score)"
        return title + (few if 0 < len(empty) < len(methods) else "")

    def _legend(self) -> style.Legend:
        others = len(set(self.points["method"])) - len(self.methods)
        handles = method_handles(self.methods, self.labels)
        if others:
            text = style.wrap(f"{others} more methods, see table.csv", 1.2)
            handles.append(Line2D([], [], ls="", label=text, **OTHERS))
        if (self.points["bad"] > 0).any():
            text = style.wrap("hollow: some runs collapsed or failed", 1.2)
            look = style.look_of(0) | {"color": "#666666", "markerfacecolor": "white"}
            handles.append(Line2D([], [], ls="", label=text, **look))
        if self.cost.front and self.points["front"].any():
            handles.append(Line2D([], [], label=style.wrap("Pareto front of the means", 1.2), **FRONT))
        note = f"Score: {self.selection} epoch; mean and standard deviation over seeds."
        if len(self.panels) > style.MOST_PANELS:
            note += f" {len(self.panels) - style.MOST_PANELS} more panels: see table.csv."
        return style.Legend(label=self.cost.label, handles=handles, note=note)

    def _draw_points(self, panel: "Panel", points: pd.DataFrame) -> None:
        numbers = {method: number for number, method in enumerate(self.methods)}
        others = points[~points["method"].isin(numbers)]
        panel.plot(others["at"], others["mean"], ls="", zorder=1, **OTHERS)
        if self.cost.front:
            _draw_front(panel, points)
        points = points.drop(others.index)
        points = points.assign(number=points["method"].map(numbers)).sort_values(["number", "at"])
        if self.cost.counts and len(points):
            step = 0.055 / self.inches * (self.limits[1] - self.limits[0])
            points["at"] = style.side_by_side(points["at"].to_numpy(), step=step)
        panel.add_collection(self._bars(points), autolim=True)
        for number in points["number"].unique():
            line = points[points["number"] == number]
            look = style.look_of(int(number))
            panel.plot(line["at"], line["mean"], lw=0.8, ls=style.style_of(int(number)), **look)
            bad = line[line["bad"] > 0]
            panel.plot(bad["at"], bad["mean"], ls="", markerfacecolor="white", zorder=4, **look)
        panel.autoscale_view(scalex=False)
        panel.yaxis.set_major_locator(MaxNLocator(4))
        panel.ticklabel_format(axis="y", useOffset=False)

    def _bars(self, points: pd.DataFrame) -> LineCollection:
        """Return the standard deviations of scores, cut at the range of the metric, and those of measured costs."""
        bars: list[list[tuple[float, float]]] = []
        colours: list[str] = []
        for point in points.fillna({"std": 0.0, "x_std": 0.0}).to_dict("records"):
            at, mean, std, x_std = (float(point[name]) for name in ("at", "mean", "std", "x_std"))
            low, high = cut((mean - std, mean + std), mean, bounds_of(point["metrics"]))
            bars.append([(at, low), (at, high)])
            if x_std > 0 and not self.cost.counts:
                least = 10 ** self.limits[0] / self.cost.scale
                ends = (max(point["x"] - x_std, least), point["x"] + x_std)
                bars.append([(math.log10(end * self.cost.scale), mean) for end in ends])
            colours += [style.look_of(point["number"])["color"]] * (len(bars) - len(colours))
        return LineCollection(bars, colors=colours, linewidths=0.6)

    def _set_ticks(self, panel: "Panel") -> None:
        """Set ticks at the counts, or at round numbers, but none so near to another that their labels touch."""
        low, high = self.limits
        values = 10 ** self.points["at"].unique() if self.cost.counts else _round_numbers(10**low, 10**high)
        values = [] if self.points.empty else values
        ticks: list[tuple[float, str]] = []
        free = -math.inf  # inches from the left up to which there are labels
        for value in sorted(values):
            at, text = math.log10(value), _short(value)
            left = (at - low) / (high - low) * self.inches - style.text_width(text) / 2
            if low <= at <= high and left > free:
                ticks.append((at, text))
                free = left + style.text_width(text) + 0.06
        panel.set_xticks([at for at, _ in ticks], [text for _, text in ticks])
        if self.cost.counts:
            panel.set_xticks(self.points["at"].unique(), minor=True)
            panel.tick_params(which="minor", length=2, width=0.5)


def without_score(groups: pd.DataFrame) -> str:
    """Return why a panel has no point, in words."""
    counts = {word: int(groups[f"n_{word}"].sum()) for word in ("collapsed", "failed", "missing")}
    runs = [f"{count} {word}" for word, count in counts.items() if count]
    return f"no score: {', '.join(runs) or 'the cost of its runs is not known'}"


def _draw_front(panel: "Panel", points: pd.DataFrame) -> None:
    """Draw the Pareto front (best mean score up to each cost) as a step line behind the points."""
    front = points[points["front"]].sort_values("at")
    if len(points) > 1 and not front.empty:
        at, mean = [*front["at"], points["at"].max()], [*front["mean"], front["mean"].iloc[-1]]
        panel.plot(at, mean, drawstyle="steps-post", solid_capstyle="butt", zorder=0, **FRONT)


def _round_numbers(low: float, high: float) -> list[float]:
    """Return 1, 2 and 5 times powers of ten between `low` and `high`, or if these are few, other round numbers."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)))
    values = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
    values = [value for value in values if low <= value <= high]
    return values if len(values) > 2 else [float(value) for value in MaxNLocator(4).tick_values(low, high) if value > 0]


def _short(value: float) -> str:
    if value < 1e4:
        return f"{value:.4g}"
    limit, unit = next(each for each in ((1e9, "G"), (1e6, "M"), (1e3, "k")) if value >= 0.9995 * each[0])
    return f"{value / limit:.3g}{unit}"
