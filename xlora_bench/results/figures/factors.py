"""Figure of the factors during training: norms of the factors, of their gradients, and of their change in a step."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from xlora_bench.results.figures.figures import COLOURS, save
from xlora_bench.results.frame.method_names import method_name
from xlora_bench.results.frame.pivot_axes import Key, PivotAxes, keys, ordered
from xlora_bench.system.escape import figure as figure_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes as Panel

NAME = "factors"
MOST_RUNS = 200
"""The figure of a larger sweep is left out: it reads a file per run."""
MOST_PANELS = 12
COLUMNS = {"norm": "norm", "grad_norm": "gradient norm", "change": "change in one step"}
"""By prefix of the columns of `factors.csv`: the title of a column of panels."""
FACTORS: Mapping[str, Literal["-", "--"]] = {"B": "-", "A": "--"}


def write_factors(
    frame: pd.DataFrame, folder: Path, *, axes: PivotAxes, labels: Mapping[str, str], results_dir: Path
) -> list[Path]:
    """Draw the Frobenius norms in `factors.csv` against the step: a row of panels per column of the table.

    A line is the mean over the adapted modules and the completed runs of a method: solid for B, dashed for A. Nothing
    is written if no run has a row, or there are more than `MOST_RUNS` runs.
    """
    done = frame[frame["status"] == "completed"]
    if not 0 < len(done) <= MOST_RUNS:
        return []
    columns = [name for name in axes.columns if name != "adapter.rank"]
    places = zip(keys(done, columns), keys(done, axes.rows), done["run_id"], strict=True)
    lines: dict[tuple[Key, Key], list[pd.DataFrame]] = {}
    for panel, method, run_id in places:
        of_run = means(results_dir / "runs" / str(run_id) / "factors.csv")
        if len(of_run):
            lines.setdefault((panel, method), []).append(of_run)
    drawn = {key: pd.concat(runs).groupby("step").mean() for key, runs in lines.items()}
    return _write(drawn, folder / NAME, dict(labels)) if drawn else []


def means(path: Path) -> pd.DataFrame:
    """Return the means over the modules of one run, by `step`; empty if the run has no monitor with these columns."""
    wanted = ["step", *(f"{what}_{factor}" for what in COLUMNS for factor in FACTORS)]
    if not path.is_file():
        return pd.DataFrame(columns=wanted)
    rows = pd.read_csv(path)
    if not set(wanted) <= set(rows):
        return pd.DataFrame(columns=wanted)
    return rows[wanted].groupby("step", as_index=False).mean()


def _write(lines: Mapping[tuple[Key, Key], pd.DataFrame], path: Path, labels: dict[str, str]) -> list[Path]:
    panels = ordered(panel for panel, _ in lines)[:MOST_PANELS]
    methods = ordered(method for _, method in lines)
    figure = Figure(figsize=(3.2 * len(COLUMNS) + 2.4, 2.6 * len(panels) + 0.4), layout="constrained")
    grid = figure.subplots(len(panels), len(COLUMNS), squeeze=False, sharex="row")
    for row, panel in zip(grid, panels, strict=True):
        for (what, title), panel_axes in zip(COLUMNS.items(), row, strict=True):
            for number, method in enumerate(methods):
                if (panel, method) in lines:
                    _draw(panel_axes, lines[panel, method], what, number)
            _finish(panel_axes, f"{figure_text(method_name(panel))}: {title}" if panel else title)
    figure.supxlabel("optimizer step", fontsize=10)
    figure.supylabel("Frobenius norm, mean over modules and runs", fontsize=10)
    handles = [
        Line2D([], [], color=COLOURS[number % len(COLOURS)], label=figure_text(method_name(method, labels)))
        for number, method in enumerate(methods)
    ]
    handles += [
        Line2D([], [], color="#444444", linestyle=style, label=f"factor {name}") for name, style in FACTORS.items()
    ]
    figure.legend(handles=handles, loc="outside right upper", frameon=False, fontsize=9)
    return save(figure, path)


def _draw(panel: "Panel", line: pd.DataFrame, what: str, number: int) -> None:
    for factor, style in FACTORS.items():
        values = line[f"{what}_{factor}"]
        positive = values[values > 0]  # a frozen factor has neither gradient nor change
        few = "o" if len(positive) == 1 else None
        panel.plot(positive.index, positive, color=COLOURS[number % len(COLOURS)], linestyle=style, marker=few, lw=1.2)


def _finish(panel: "Panel", title: str) -> None:
    panel.set_yscale("log")
    panel.set_title(title, fontsize=10)
    panel.grid(alpha=0.25, linewidth=0.6)
    panel.spines[["top", "right"]].set_visible(False)
