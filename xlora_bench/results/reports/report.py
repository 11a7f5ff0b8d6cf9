"""Write a report: the files of a table, its runs, its figures and its comparison."""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from xlora_bench.results.comparison import conclusions, write_comparison
from xlora_bench.results.comparison.build import compare
from xlora_bench.results.figures.factors import write_factors
from xlora_bench.results.figures.figures import figure_notes, write_figures
from xlora_bench.results.frame.trials import without_trials
from xlora_bench.results.page.write import NAME as PAGE
from xlora_bench.results.page.write import write_page
from xlora_bench.results.protocols.paper import Paper
from xlora_bench.results.protocols.protocol import Aggregation, Selection
from xlora_bench.results.protocols.selection import under
from xlora_bench.results.tables.build_table import build_table
from xlora_bench.results.tables.table import Table
from xlora_bench.system.escape import csv
from xlora_bench.system.io import write_atomically

log = logging.getLogger(__name__)


def write_report(
    frame: pd.DataFrame,
    folder: str | Path,
    *,
    title: str,
    paper: Paper | None = None,
    selection: Selection | None = None,
    aggregation: Aggregation | None = None,
    results_dir: Path | None = None,
    reference: Mapping[str, str] | None = None,
) -> Table:
    """Write the table of a tidy frame, its runs, figures and comparison into `folder`; return the table.

    Files: `report.html` (see `write_page`), `table.md`, `table.csv`, `table.tex`, `runs.csv`, those of `write_figures`
    and `write_factors` (PNG, SVG, PDF), and those of `write_comparison`. The figure of the factors and comparisons by
    example need `results_dir`, the folder that holds `runs/`. An error in a figure or a comparison is only a warning,
    unless a `reference` is given.
    `reference` names the method that others are compared with, such as `{"adapter": "lora"}` (see `find_reference`).
    `selection` and `aggregation` default to the paper's, else to the best epoch and the mean.

    Raises:
        ValueError: if the frame is empty, no run has a score under `selection`, `reference` does not match exactly one
            method, or `folder` cannot be written.
    """
    frame = under(frame, selection or (paper.protocol.selection if paper else None) or "best")
    table = build_table(frame, title=title, paper=paper, aggregation=aggregation)
    table = dataclasses.replace(table, notes=[*table.notes, *figure_notes(without_trials(frame))])
    texts = {
        "table.md": table.to_markdown(),
        "table.csv": table.to_csv(),
        "table.tex": table.to_latex(),
        "runs.csv": csv(frame),
    }
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            write_atomically(folder / name, text)
    except OSError as error:
        raise ValueError(
            f"the report folder {folder} cannot be written: {error}; choose another one with "
            "`xlora-bench table RESULTS_DIR --out DIR`"
        ) from error
    try:
        shown = without_trials(frame)
        write_figures(shown, folder, axes=table.axes, labels=table.row_labels)
        if results_dir is not None:
            write_factors(shown, folder, axes=table.axes, labels=table.row_labels, results_dir=results_dir)
    except Exception as error:
        log.warning("no figures in %s: %s: %s", folder, type(error).__name__, error)
    comparison = None
    try:
        comparison = write_comparison(
            frame,
            folder,
            axes=table.axes,
            row_labels=table.row_labels,
            reference=reference,
            results_dir=results_dir,
        )
        if comparison is not None:
            table = dataclasses.replace(table, conclusions=conclusions(comparison))
    except Exception as error:
        if reference is not None:
            raise
        log.warning("no comparison in %s: %s: %s", folder, type(error).__name__, error)
    try:
        page = folder / PAGE
        write_page(page, title=table.title, frame=frame, table=table, comparison=comparison, results_dir=results_dir)
    except Exception as error:
        log.warning("no page in %s: %s: %s", folder, type(error).__name__, error)
    return table


def report_page(
    frame: pd.DataFrame,
    path: Path,
    *,
    title: str,
    paper: Paper | None = None,
    selection: Selection | None = None,
    aggregation: Aggregation | None = None,
    results_dir: Path | None = None,
    reference: Mapping[str, str] | None = None,
    notes: Sequence[str] = (),
) -> Path:
    """Write only the page of a tidy frame, which may be empty; the arguments are those of `write_report`.

    Raises:
        ValueError: if no run has a score under `selection`, `reference` does not match exactly one method, or `path`
            cannot be written.
    """
    table, comparison = None, None
    if not frame.empty:
        frame = under(frame, selection or (paper.protocol.selection if paper else None) or "best")
        table = build_table(frame, title=title, paper=paper, aggregation=aggregation)
        comparison = compare(
            frame, axes=table.axes, row_labels=table.row_labels, reference=reference, results_dir=results_dir
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return write_page(
            path,
            title=table.title if table else title,
            frame=frame,
            table=table,
            comparison=comparison,
            results_dir=results_dir,
            notes=notes,
        )
    except OSError as error:
        raise ValueError(f"`--out` (={path}) cannot be written: {error}; choose another file") from error
