"""Figure of the factors during training: norms of the factors, of their gradients, and of their change in a step."""

from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullFormatter

from xlora_bench.results.figures import style
from xlora_bench.results.figures.figures import method_handles
from xlora_bench.results.frame.method_names import method_name
from xlora_bench.results.frame.pivot_axes import Key, PivotAxes, keys, ordered

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
    panel_keys = ordered(panel for panel, _ in lines)[:MOST_PANELS]
    every_method = ordered(method for _, method in lines)
    methods = every_method[: style.MOST_METHODS]
    handles = method_handles(methods, labels)
    for handle in handles:
        handle.set(linestyle="-", marker="")
    handles += [Line2D([], [], color="#444444", lw=0.8, ls=ls, label=f"factor {name}") for name, ls in FACTORS.items()]
    few = "" if methods == every_method else f" The first {len(methods)} of {len(every_method)} methods."
    legend = style.Legend(
        label="optimizer step",
        handles=handles,
        note=f"Frobenius norms, means over modules and runs.{few}",
    )
    wanted = list(product(panel_keys, COLUMNS.items()))
    titles = [": ".join(filter(None, (method_name(key) if key else "", title))) for key, (_, title) in wanted]
    figure, panels = style.panels(titles, [0.8] * len(wanted), columns=len(COLUMNS), left=0.33, legend=legend)
    for (key, (what, _)), panel in zip(wanted, panels, strict=True):
        for number, method in enumerate(methods):
            if (key, method) in lines:
                _draw(panel, lines[key, method], what, number)
        panel.set_yscale("log")
        panel.yaxis.set_minor_formatter(NullFormatter())
        panel.xaxis.set_major_locator(MaxNLocator(2, integer=True))
    return style.save(figure, path)


def _draw(panel: "Panel", line: pd.DataFrame, what: str, number: int) -> None:
    colour = style.look_of(number)["color"]
    for factor, dashes in FACTORS.items():
        values = line[f"{what}_{factor}"]
        positive = values[values > 0]  # a frozen factor has neither gradient nor change
        few = "o" if len(positive) == 1 else None
        panel.plot(positive.index, positive, color=colour, linestyle=dashes, marker=few, markersize=2, lw=0.8)
