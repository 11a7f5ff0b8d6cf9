"""What all figures share: the width of a paper's column, text that is readable there, colours, a legend, the files."""

import logging
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from xlora_bench.system.escape import figure as figure_text
from xlora_bench.system.escape import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes as Panel

logging.getLogger("fontTools").setLevel(logging.WARNING)  # it logs each table of a font that it puts into a PDF

WIDTH = 84 / 25.4
"""Width of a figure in inches: 84 mm, a column of a paper."""
SIZE = 6
"""Size of all text in points."""
LINE = 0.12
"""Height of a line of text in inches."""
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's colours for colour-blind readers, without yellow, which is not visible on white."""
MARKERS = "osD^vPX*<>"
STYLES = ("-", "--", ":")
MOST_METHODS = 14
"""More methods than these are not drawn one by one: they would need more colours than a reader can tell apart."""
MOST_PANELS = 12
GREY = "#999999"
HANDLE = 0.42
"""Inches that a legend needs for a column beside its text."""


@dataclass(frozen=True, kw_only=True)
class Legend:
    """What is below the panels: the label of the horizontal axes, the handles in as many columns as fit, and a note."""

    label: str
    handles: Sequence[Any] = ()
    note: str = ""

    @property
    def columns(self) -> int:
        """The number of columns of handles."""
        widest = max((text_width(handle.get_label()) for handle in self.handles), default=1.0)
        return max(1, min(len(self.handles), int(WIDTH / (widest + HANDLE))))

    @property
    def height(self) -> float:
        """The height in inches."""
        tall = np.array([lines_of(handle.get_label()) for handle in self.handles])
        rows = max(part.sum() for part in np.array_split(tall, self.columns))  # as matplotlib splits them
        return float(LINE * (rows + sum(map(lines_of, self._texts))) + 0.1)

    @property
    def _texts(self) -> tuple[str, str]:
        return wrap(self.label, WIDTH - 0.1), wrap(self.note, WIDTH - 0.1)

    def draw(self, figure: Figure) -> None:
        """Draw it at the bottom of `figure`."""
        total, (label, note) = figure.get_figheight(), self._texts
        figure.text(0.5, self.height / total, label, ha="center", va="top", fontsize=SIZE)
        figure.text(0.5, 0.04 / total, note, ha="center", va="bottom", fontsize=SIZE)
        if self.handles:
            figure.legend(
                handles=self.handles,
                loc="upper center",
                bbox_to_anchor=(0.5, (self.height - LINE * lines_of(label) - 0.03) / total),
                ncols=self.columns,
                fontsize=SIZE,
                frameon=False,
                borderpad=0,
                borderaxespad=0,
                labelspacing=0.25,
                handlelength=2.0,
                handletextpad=0.5,
                columnspacing=1.0,
            )


def panels(
    titles: Sequence[str],
    heights: Sequence[float],
    *,
    columns: int,
    left: float,
    right: float = 0.06,
    below: float = 0.2,
    legend: Legend,
) -> tuple[Figure, list["Panel"]]:
    """Return a figure of width `WIDTH` with a panel per title, in `columns` columns, and its legend below.

    `heights` are those of the panels, in inches; `left` and `right` are for labels beside a panel, `below` for the
    labels of its ticks.
    """
    share = WIDTH / columns
    wrapped = [wrap(title, share - 0.1) for title in titles]
    rows = [range(start, min(start + columns, len(titles))) for start in range(0, len(titles), columns)]
    above = [max(lines_of(wrapped[index]) for index in row) * LINE + 0.05 for row in rows]
    tall = [max(heights[index] for index in row) for row in rows]
    total = sum(above) + sum(tall) + below * len(rows) + legend.height
    figure, drawn, top = Figure(figsize=(WIDTH, total)), [], total
    width = share - left - right
    for row, over, height in zip(rows, above, tall, strict=True):
        top -= over + height
        for number, index in enumerate(row):
            start = number * share + left
            panel = figure.add_axes((start / WIDTH, top / total, width / WIDTH, height / total))
            panel.set_title(wrapped[index], loc="left", x=(0.04 - left) / width, fontsize=SIZE, pad=3)
            panel.tick_params(labelsize=SIZE, length=2, pad=2, width=0.5)
            panel.spines[["top", "right"]].set_visible(False)
            panel.spines[["left", "bottom"]].set_linewidth(0.5)
            panel.grid(alpha=0.25, linewidth=0.4)
            panel.set_axisbelow(True)
            drawn.append(panel)
        top -= below
    legend.draw(figure)
    return figure, drawn


def save(figure: Figure, path: Path) -> list[Path]:
    """Write a figure as PNG, SVG and PDF, the same bytes for the same figure; return the paths."""
    paths = [path.with_name(f"{path.name}.{kind}") for kind in ("png", "svg", "pdf")]
    with rc_context({"svg.hashsalt": path.name, "pdf.fonttype": 42}):
        figure.savefig(paths[0], dpi=200)
        figure.savefig(paths[1], metadata={"Date": None})
        figure.savefig(paths[2], metadata={"CreationDate": None})
    return paths


def look_of(number: int) -> dict[str, Any]:
    """Return colour, marker and size of the method with index `number`."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKERS[number % len(MARKERS)],
        "markersize": 3.5,
        "markeredgewidth": 0.6,
    }


def style_of(number: int) -> str:
    """Return the line style of the method with index `number`; it changes when the colours repeat."""
    return STYLES[number // len(COLOURS) % len(STYLES)]


def wrap(text: str, width: float, *, most: int = 3) -> str:
    """Return `text` for a figure in lines of at most `width` inches; of more than `most` lines the last one is kept."""
    line = one_line(text)
    characters = max(8, int(0.95 * width * len(line) / max(text_width(line), 1e-9)))
    lines = textwrap.wrap(line, characters) or [""]
    if len(lines) > most:
        lines = [*lines[: most - 2], f"{lines[most - 2][: characters - 1]}…", lines[-1]]
    return "\n".join(map(figure_text, lines))


def lines_of(text: str) -> int:
    """Return the number of lines of a wrapped text."""
    return text.count("\n") + 1


@cache
def text_width(text: str) -> float:
    """Return the width of the widest line of `text` in inches."""
    font = FontProperties(size=SIZE)
    return max(text_to_path.get_text_width_height_descent(line, font, False)[0] / 72 for line in text.split("\n"))


def side_by_side(positions: np.ndarray, *, step: float) -> np.ndarray:
    """Return `positions (n,)` of points on an axis, those nearer than `step` put side by side around their mean.

    A group takes at most half of the way to the next one, so that each point is seen to belong to its own.
    """
    order = np.argsort(positions, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(positions[order]) >= step) + 1)
    middles = np.array([positions[group].mean() for group in groups])
    gaps = np.concatenate([[np.inf], np.diff(middles), [np.inf]])
    moved = positions.astype(float).copy()
    for group, middle, before, after in zip(groups, middles, gaps[:-1], gaps[1:], strict=True):
        count = len(group)
        width = min(step * (count - 1), 0.5 * min(before, after))
        moved[group] = middle + (np.arange(count) - (count - 1) / 2) * width / max(count - 1, 1)
    return moved
