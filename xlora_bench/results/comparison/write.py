"""Files of the comparison: `comparison.md`, `comparison.csv`, and its figures."""

import logging
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import pandas as pd

from xlora_bench.results.comparison.build import Comparison, compare
from xlora_bench.results.comparison.diagram import write_diagram
from xlora_bench.results.comparison.ranked_differences import write_ranked_differences
from xlora_bench.results.comparison.text import to_frame, to_markdown
from xlora_bench.results.frame.method_names import column_label
from xlora_bench.results.frame.pivot_axes import PivotAxes
from xlora_bench.results.statistics.across import LEAST_METHODS, critical_difference
from xlora_bench.system.escape import csv
from xlora_bench.system.io import write_atomically

log = logging.getLogger(__name__)


def write_comparison(
    frame: pd.DataFrame,
    folder: str | Path,
    *,
    axes: PivotAxes,
    row_labels: Mapping[str, str],
    reference: Mapping[str, str] | None = None,
    results_dir: Path | None = None,
) -> Comparison | None:
    """Write the comparison of a tidy frame on the axes of its table; nothing if there is only one method.

    Files in `folder`: `comparison.md`, `comparison.csv`, and as PNG, SVG and PDF `ranked_differences`, and
    `critical_difference*` per setting with enough tasks. `results_dir` is the folder that holds `runs/`, for
    comparisons by example.

    Raises:
        ValueError: if `reference` does not match exactly one method.
        OSError: if a file cannot be written.
    """
    comparison = compare(frame, axes=axes, row_labels=row_labels, reference=reference, results_dir=results_dir)
    if comparison is None:
        return None
    folder = Path(folder)
    draw = partial(write_ranked_differences, comparison, folder / "ranked_differences")
    ranked = _drawn("ranked differences", draw, folder) if comparison.columns else None
    figures = _write_diagrams(comparison, folder)
    write_atomically(folder / "comparison.md", to_markdown(comparison, figures, ranked=ranked))
    write_atomically(folder / "comparison.csv", csv(to_frame(comparison)))
    return comparison


def _write_diagrams(comparison: Comparison, folder: Path) -> list[str | None]:
    """Write the diagram of each setting; return its file name, or None if there is no diagram."""
    names = [name for name in comparison.axes.columns if name != "task"]
    written: list[str | None] = []
    for across in comparison.across:
        tasks, methods = across.scores.shape
        if across.p_pairs is None or methods < LEAST_METHODS:
            written.append(None)
            continue
        setting = re.sub(r"[^\w.=-]+", "_", column_label(names, across.setting))
        path = folder / ("critical_difference" + (f"-{setting}" if setting else ""))
        distance = critical_difference(methods, tasks)
        draw = partial(write_diagram, across.ranks, across.p_pairs, path, tasks=tasks, distance=distance)
        written.append(_drawn("diagram of ranks", draw, folder))
    return written


def _drawn(what: str, draw: Callable[[], list[Path]], folder: Path) -> str | None:
    """Return the file name of the first file of a figure; None, after a warning, if it cannot be drawn."""
    try:
        return draw()[0].name
    except Exception as error:
        log.warning("no %s in %s: %s: %s", what, folder, type(error).__name__, error)
        return None
