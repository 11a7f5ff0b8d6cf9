"""Ranked differences: by column, the methods in the order of their mean scores, each with its difference's interval."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from xlora_bench.results.comparison.build import Comparison
from xlora_bench.results.comparison.columns import Column, Line
from xlora_bench.results.comparison.pairwise import PairwiseTest
from xlora_bench.results.figures import style
from xlora_bench.results.frame.method_names import column_label
from xlora_bench.results.statistics.permutation_test import ALPHA

if TYPE_CHECKING:
    from matplotlib.axes import Axes as Panel

MOST_ROWS = 24
"""More methods of a panel than these are left out, those with the lowest means; the reference is always shown."""
COLOUR = style.COLOURS[0]
KINDS = {
    f"significant (Holm, p ≤ {ALPHA:g})": COLOUR,
    "significant by max-T alone": style.COLOURS[5],
    "not significant": "white",
}
"""By meaning: the colour inside a marker."""


def write_ranked_differences(comparison: Comparison, path: Path) -> list[Path]:
    """Write the figure as PNG, SVG and PDF at `path` plus suffix; return the paths."""
    columns = comparison.columns[: style.MOST_PANELS]
    rows = {column.key: ranked(column) for column in columns}
    names = {key: style.wrap(label, 1.15) for key, label in comparison.labels.items()}
    heights = {key: sum(style.lines_of(names[line.method]) for line in lines) for key, lines in rows.items()}
    figure, panels = style.panels(
        [_title(comparison, column) for column in columns],
        [style.LINE * heights[column.key] + 0.06 for column in columns],
        columns=1,
        left=max(style.text_width(names[line.method]) for lines in rows.values() for line in lines) + 0.12,
        right=0.62,
        below=0.25,
        legend=_legend(comparison),
    )
    for column, panel in zip(columns, panels, strict=True):
        lines = rows[column.key]
        tall = [style.lines_of(names[line.method]) for line in lines]
        at = np.cumsum(tall) - np.array(tall) / 2
        _draw(panel, lines, at, height=heights[column.key])
        panel.set_yticks(at, [names[line.method] for line in lines])
    return style.save(figure, path)


def ranked(column: Column) -> list[Line]:
    """Return the lines of a column by mean score, best first, without a score last; at most `MOST_ROWS`."""
    lines = sorted(column.lines, key=lambda line: math.inf if math.isnan(line.mean) else -line.mean)
    if len(lines) <= MOST_ROWS:
        return lines
    kept = [line for line in lines[:MOST_ROWS] if not line.is_reference][: MOST_ROWS - 1]
    return [line for line in lines if line.is_reference or line in kept]


def _draw(panel: "Panel", lines: list[Line], at: np.ndarray, *, height: float) -> None:
    """Draw a row per line at the heights `at`: interval and point, and on the right mean and number of runs."""
    beside: dict[str, Any] = {"transform": panel.get_yaxis_transform(), "va": "center_baseline", "fontsize": style.SIZE}
    over = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
    bars = []
    points: dict[str, list[tuple[float, float]]] = {kind: [] for kind in KINDS}
    for line, y in zip(lines, at, strict=True):
        if line.pairwise is None:
            panel.text(0.02, y, _without_pair(line), zorder=2, bbox=over, **beside)
        else:
            points[kind_of(line.pairwise)].append((line.pairwise.difference, y))
            if interval := line.pairwise.interval:
                bars.append([(interval.low, y), (interval.high, y)])
        if line.n:
            panel.text(1.03, y, f"{line.mean:.4f} ({line.n})", **beside)
    panel.add_collection(LineCollection(bars, colors=COLOUR, linewidths=0.9))
    for kind, drawn in points.items():
        panel.plot([x for x, _ in drawn], [y for _, y in drawn], zorder=3, **_marker(KINDS[kind]))
    panel.set_ylim(height, 0)
    panel.grid(visible=False, axis="y")
    if not any(points.values()):
        panel.set_xticks([])
        return
    panel.axvline(0.0, color="#444444", lw=0.6, zorder=1)
    panel.autoscale_view(scaley=False)
    panel.xaxis.set_major_locator(MaxNLocator(4))
    panel.ticklabel_format(axis="x", useOffset=False)


def kind_of(pairwise: PairwiseTest) -> str:
    """Return the key of `KINDS` for a test."""
    by_holm, by_max_t, neither = KINDS
    return by_holm if pairwise.p_holm <= ALPHA else by_max_t if pairwise.significant else neither


def _without_pair(line: Line) -> str:
    if line.is_reference:
        return "reference" if line.n else "reference, without a completed run"
    if line.n:
        return "no pair with the reference"
    counts = {"collapsed or failed": line.failed, "missing": line.missing}
    return ", ".join(["no score", *(f"{count} {word}" for word, count in counts.items() if count)])


def _marker(inside: str) -> dict[str, Any]:
    look = {"marker": "o", "markersize": 3.5, "markeredgewidth": 0.7, "ls": ""}
    return {**look, "markerfacecolor": inside, "markeredgecolor": COLOUR, "color": COLOUR}


def _title(comparison: Comparison, column: Column) -> str:
    metric = ", ".join(column.metrics) or "score"
    title = ": ".join(filter(None, (column_label(comparison.axes.columns, column.key), metric)))
    more = len(column.lines) - MOST_ROWS
    return f"{title} ({more} methods with lower means: see comparison.md)" if more > 0 else title


def _legend(comparison: Comparison) -> style.Legend:
    left_out = len(comparison.columns) - style.MOST_PANELS
    tests = [line.pairwise for column in comparison.columns for line in column.lines if line.pairwise]
    kinds = {kind_of(pairwise) for pairwise in tests}
    return style.Legend(
        label=f"difference to {comparison.labels[comparison.reference]}",
        handles=[Line2D([], [], label=kind, **_marker(inside)) for kind, inside in KINDS.items() if kind in kinds],
        note="Mean difference over seeds, with its 95 % t-interval; right: mean score (number of runs)."
        + (f" {left_out} more panels: see comparison.md." if left_out > 0 else ""),
    )
