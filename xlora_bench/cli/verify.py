"""`xlora-bench verify TABLE`: retrain a sample of a table's runs and compare bit by bit."""

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from xlora_bench.cli.parser import Parser
from xlora_bench.results.reproduce.records_archive import recorded_in
from xlora_bench.results.reproduce.verify import Check, chosen, lookup, verify
from xlora_bench.runs.console import console

COLUMNS = ("run_id", "what it is", "recorded", "again", "identical", "largest difference", "why")


def main(arguments: Sequence[str] | None = None) -> int:
    """Verify a table and print the checks; return the exit code (1: a check did not pass)."""
    parser = Parser(
        prog="xlora-bench verify",
        description="Retrain a sample of recorded runs in a temporary folder and compare bitwise. Exit code 1 if a run "
        "on the same machine, versions and threads is not identical, or could not be trained.",
    )
    parser.add_argument(
        "table", type=Path, help="RESULTS_DIR/reports/<name>, RESULTS_DIR, or an archive (records.jsonl.gz)"
    )
    parser.add_argument("--sample", type=int, default=3, help="number of runs in the sample (default 3)")
    parser.add_argument("--seed", type=int, default=0, help="seed that draws the sample (default 0)")
    parser.add_argument("--runs", nargs="+", default=[], metavar="ID", help="these runs instead of a sample")
    parser.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="MODULE",
        help="a module of yours whose classes the records may name; it is imported (repeatable)",
    )
    parser.add_argument("--data-dir", type=Path, default=None, help="the data, if it is not where the record says")
    options = parser.parse_args(arguments)
    try:
        runs = recorded_in(options.table)
        run_ids = chosen(runs, given=options.runs, sample=options.sample, seed=options.seed)
        recorded = lookup(runs, options.table)
        checks = verify(run_ids, recorded=recorded, data_dir=options.data_dir, trust=options.trust)
    except ValueError as error:
        console(error=True).print(f"error: {error}", soft_wrap=True, markup=False, highlight=False)
        return 1
    say(checks)
    return 0 if all(check.passed for check in checks) else 1


def say(checks: Sequence[Check]) -> None:
    """Print the table of checks and the number of bit-identical runs."""
    table = Table()
    for column in COLUMNS:
        table.add_column(column, overflow="fold")
    for check in checks:
        table.add_row(*(Text(text) for text in check.row()))
    terminal = console()
    terminal.print(table)
    count = sum(check.identical for check in checks)
    excused = sum(check.passed and not check.identical for check in checks)
    text = f"{count} of {len(checks)} runs came again bit-identical"
    terminal.print(text + (f"; {excused} on another machine, versions or threads differ" if excused else ""))
