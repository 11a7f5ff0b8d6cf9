"""The files a table leaves behind, for people and for programs."""

import logging
from pathlib import Path

import pandas as pd

from xlora_bench.results.figures import write_figures
from xlora_bench.results.paper import Paper
from xlora_bench.results.record import write_atomically
from xlora_bench.results.tables import Table
from xlora_bench.results.tabulate import build_table

log = logging.getLogger(__name__)


def write_report(frame: pd.DataFrame, folder: str | Path, *, title: str, paper: Paper | None = None) -> Table:
    """Write the table of a tidy frame, its cells and its figures into `folder` and return the table.

    Files: `table.md`, `table.csv`, `table.tex`, `cells.csv`, `score_vs_parameters` and `score_vs_rank` as PNG
    and SVG. A figure that cannot be drawn is a warning, because the numbers do not depend on it.

    Raises:
        ValueError: if the frame is empty or `folder` cannot be written.
    """
    table = build_table(frame, title=title, paper=paper)
    texts = {
        "table.md": table.to_markdown(),
        "table.csv": table.to_csv(),
        "table.tex": table.to_latex(),
        "cells.csv": frame.to_csv(index=False),
    }
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            write_atomically(folder / name, text)
    except OSError as error:
        raise ValueError(
            f"the report folder {folder} cannot be written: {error}; choose another results folder"
        ) from error
    try:
        write_figures(frame, folder, axes=table.axes, labels=table.row_labels)
    except Exception as error:
        log.warning("no figures in %s: %s: %s", folder, type(error).__name__, error)
    return table
