"""`xlora-bench table RESULTS_DIR [--filter adapter=lora ...]`: print and write the table of recorded runs."""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import pandas as pd

from xlora_bench.results.frame.collect import collect
from xlora_bench.results.protocols.load_paper import load_paper
from xlora_bench.results.protocols.protocol import Aggregation, Selection
from xlora_bench.results.protocols.selection import with_selections
from xlora_bench.results.reports.report import write_report
from xlora_bench.runs.console import console


def main(arguments: Sequence[str] | None = None) -> int:
    """Print and write the table of a results folder; return the exit code."""
    parser = argparse.ArgumentParser(prog="xlora-bench table", description="The table of all recorded runs.")
    parser.add_argument("results_dir", type=Path, help="the folder that holds `runs/`")
    parser.add_argument(
        "--filter",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="keep only these runs, such as adapter=lora adapter.rank=8",
    )
    parser.add_argument(
        "--paper", metavar="NAME", help="use the layout and the published numbers of conf/paper/NAME.yaml"
    )
    parser.add_argument("--selection", choices=get_args(Selection), help="scored epoch; cross_split: on halves of dev")
    parser.add_argument("--aggregation", choices=get_args(Aggregation), help="over seeds")
    parser.add_argument(
        "--reference",
        nargs="+",
        metavar="KEY=VALUE",
        help="the method that the others are compared with in comparison.md (default adapter=lora)",
    )
    options = parser.parse_args(arguments)
    try:
        _report(options)
    except ValueError as error:
        console(error=True).print(f"error: {error}", soft_wrap=True, markup=False, highlight=False)
        return 1
    return 0


def _report(options: argparse.Namespace) -> None:
    results_dir = options.results_dir
    if not any((results_dir / name).is_dir() for name in ("runs", "cells")):
        raise ValueError(f"`{results_dir}` is not a results folder: it has no folder `runs`")
    paper = load_paper(options.paper) if options.paper else None
    frame = collect(results_dir)
    attributes = frame.attrs
    for item in options.filter:
        frame = frame[_matches(frame, item)]
    frame.attrs = attributes
    chosen = [text for text in (options.paper, *options.filter, options.selection, options.aggregation) if text]
    folder = results_dir / "reports" / (re.sub(r"[^\w.=-]+", "_", ",".join(chosen)) or "all")
    table = write_report(
        with_selections(frame, results_dir),
        folder,
        title=", ".join(options.filter) or "All runs",
        paper=paper,
        selection=options.selection,
        aggregation=options.aggregation,
        results_dir=results_dir,
        reference=_pairs(options.reference) if options.reference else None,
    )
    terminal = console()
    terminal.print(table.to_rich())
    if attributes["missing"]:
        terminal.print(f"{len(attributes['missing'])} runs have no record: running, or stopped before their end")
    terminal.print(f"Files: {folder}", soft_wrap=True, markup=False, highlight=False)


def _pairs(items: Sequence[str]) -> dict[str, str]:
    """Return `KEY=VALUE` texts as a dict."""
    for item in items:
        if "=" not in item:
            raise ValueError(f"`--reference {item}` must be KEY=VALUE, such as adapter=lora")
    return {key: value for key, _, value in (item.partition("=") for item in items)}


def _matches(frame: pd.DataFrame, item: str) -> pd.Series:
    """Return the row mask of KEY=VALUE; values are compared as text and as numbers (`2e-5` equals 2e-05)."""
    key, equals, wanted = item.partition("=")
    if not equals or key not in frame:
        names = ", ".join(name for name in frame.columns if "/" not in name)
        raise ValueError(f"`--filter {item}` must be KEY=VALUE with a key of the runs: {names}")
    same = frame[key].astype(str) == wanted
    try:
        return same | (pd.to_numeric(frame[key], errors="coerce") == float(wanted))
    except ValueError:
        return same
