"""`xlora-bench archive RESULTS_DIR/reports/<name> OUT`: pack the records of a table into one file."""

from collections.abc import Sequence
from pathlib import Path

from xlora_bench.cli.parser import Parser
from xlora_bench.results.reproduce.records_archive import runs_of_report, write_archive
from xlora_bench.runs.console import console


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the archive of a report's runs; return the exit code."""
    parser = Parser(
        prog="xlora-bench archive",
        description="Pack the records of a table into one file, which `verify` and `diff` can read.",
    )
    parser.add_argument("report", type=Path, help="the folder of a report, RESULTS_DIR/reports/<name>")
    parser.add_argument("out", type=Path, help="the file to write, for instance docs/findings/<name>/records.jsonl.gz")
    options = parser.parse_args(arguments)
    try:
        runs = runs_of_report(options.report)
        write_archive(runs, options.out)
    except ValueError as error:
        console(error=True).print(f"error: {error}", soft_wrap=True, markup=False, highlight=False)
        return 1
    size = options.out.stat().st_size / 1e3
    console().print(f"{len(runs)} runs, {size:,.0f} kB: {options.out}", soft_wrap=True, markup=False, highlight=False)
    return 0
