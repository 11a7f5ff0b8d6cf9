"""`python -m xlora_bench.results RESULTS_DIR [--filter adapter=lora ...]`: the table of all cells."""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from xlora_bench.results.collect import collect
from xlora_bench.results.progress import console
from xlora_bench.results.report import write_report


def main(arguments: Sequence[str] | None = None) -> int:
    """Print and write the table of a results folder; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m xlora_bench.results", description="The table of all recorded cells."
    )
    parser.add_argument("results_dir", type=Path, help="the folder that holds `cells/`")
    parser.add_argument(
        "--filter",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="only these cells: adapter=lora adapter.rank=8",
    )
    options = parser.parse_args(arguments)
    try:
        _report(options.results_dir, options.filter)
    except ValueError as error:
        console(error=True).print(f"error: {error}", soft_wrap=True, markup=False, highlight=False)
        return 1
    return 0


def _report(results_dir: Path, filters: Sequence[str]) -> None:
    if not (results_dir / "cells").is_dir():
        raise ValueError(f"`{results_dir}` is not a results folder: it has no folder `cells`")
    frame = collect(results_dir)
    attributes = frame.attrs
    for item in filters:
        frame = frame[_matches(frame, item)]
    frame.attrs = attributes
    name = re.sub(r"[^\w.=-]+", "_", ",".join(filters)) or "all"
    folder = results_dir / "reports" / name
    table = write_report(frame, folder, title=", ".join(filters) or "All cells")
    terminal = console()
    terminal.print(table.to_rich())
    if attributes["missing"]:
        terminal.print(f"{len(attributes['missing'])} cells have no record: running, or stopped before their end")
    terminal.print(f"Files: {folder}", soft_wrap=True, markup=False, highlight=False)


def _matches(frame: pd.DataFrame, item: str) -> pd.Series:
    """Return which rows hold the wanted value: as text, or as the same number (`2e-5` is 2e-05)."""
    key, equals, wanted = item.partition("=")
    if not equals or key not in frame:
        names = ", ".join(name for name in frame.columns if "/" not in name)
        raise ValueError(f"`--filter {item}` must be KEY=VALUE with a key of the cells: {names}")
    same = frame[key].astype(str) == wanted
    try:
        return same | (pd.to_numeric(frame[key], errors="coerce") == float(wanted))
    except ValueError:
        return same


if __name__ == "__main__":
    sys.exit(main())
