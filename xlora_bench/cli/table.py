"""`xlora-bench table RESULTS_DIR [--filter adapter=lora ...]`: print and write the table of recorded runs."""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from xlora_bench.cli.parser import Parser
from xlora_bench.cli.recorded_runs import add_report_options, home, recorded_runs, report_settings
from xlora_bench.results.reports.report import write_report
from xlora_bench.runs.console import console


def main(arguments: Sequence[str] | None = None) -> int:
    """Print and write the table of a results folder; return the exit code."""
    parser = Parser(prog="xlora-bench table", description="The table of all recorded runs.")
    add_report_options(parser)
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the files (RESULTS_DIR/reports/NAME)")
    options = parser.parse_args(arguments)
    try:
        _report(options)
    except ValueError as error:
        console(error=True).print(f"error: {error}", soft_wrap=True, markup=False, highlight=False)
        return 1
    return 0


def _report(options: argparse.Namespace) -> None:
    settings = report_settings(options)
    frame = recorded_runs(options.results_dir, options.filter)
    chosen = [text for text in (options.paper, *options.filter, options.selection, options.aggregation) if text]
    name = re.sub(r"[^\w.=-]+", "_", ",".join(chosen)) or "all"
    folder = options.out or home(options.results_dir) / "reports" / name
    table = write_report(frame, folder, **settings)
    terminal = console()
    terminal.print(table.to_rich())
    if frame.attrs["missing"]:
        terminal.print(f"{len(frame.attrs['missing'])} runs have no record: running, or stopped before their end")
    terminal.print(f"Files: {folder}", soft_wrap=True, markup=False, highlight=False)
