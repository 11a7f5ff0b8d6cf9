"""`xlora-bench table RESULTS_DIR [--filter adapter=lora ...]`: print and write the table of recorded runs."""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from xlora_bench.cli.parser import Parser
from xlora_bench.cli.recorded_runs import add_options, pairs, recorded_runs
from xlora_bench.results.protocols.load_paper import load_paper
from xlora_bench.results.protocols.protocol import Aggregation
from xlora_bench.results.reports.report import write_report
from xlora_bench.runs.console import console


def main(arguments: Sequence[str] | None = None) -> int:
    """Print and write the table of a results folder; return the exit code."""
    parser = Parser(prog="xlora-bench table", description="The table of all recorded runs.")
    add_options(parser)
    parser.add_argument("--aggregation", choices=get_args(Aggregation), help="over seeds")
    parser.add_argument(
        "--reference",
        nargs="+",
        metavar="KEY=VALUE",
        help="the method that the others are compared with in comparison.md (default adapter=lora)",
    )
    parser.add_argument(
        "--config-dir", type=Path, metavar="DIR", help="a folder of yours, for --paper: DIR/paper/NAME.yaml"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the files (RESULTS_DIR/reports/NAME)")
    options = parser.parse_args(arguments)
    try:
        _report(options)
    except ValueError as error:
        console(error=True).print(f"error: {error}", soft_wrap=True, markup=False, highlight=False)
        return 1
    return 0


def _report(options: argparse.Namespace) -> None:
    results_dir = options.results_dir
    paper = load_paper(options.paper, config_dir=options.config_dir) if options.paper is not None else None
    frame = recorded_runs(results_dir, options.filter)
    chosen = [text for text in (options.paper, *options.filter, options.selection, options.aggregation) if text]
    name = re.sub(r"[^\w.=-]+", "_", ",".join(chosen)) or "all"
    folder = options.out or results_dir / "reports" / name
    table = write_report(
        frame,
        folder,
        title=", ".join(options.filter) or "All runs",
        paper=paper,
        selection=options.selection,
        aggregation=options.aggregation,
        results_dir=results_dir,
        reference=pairs(options.reference, option="--reference") if options.reference else None,
    )
    terminal = console()
    terminal.print(table.to_rich())
    if frame.attrs["missing"]:
        terminal.print(f"{len(frame.attrs['missing'])} runs have no record: running, or stopped before their end")
    terminal.print(f"Files: {folder}", soft_wrap=True, markup=False, highlight=False)
