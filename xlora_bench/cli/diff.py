"""`xlora-bench diff RUN RUN`: why two numbers differ."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from xlora_bench.cli.parser import Parser
from xlora_bench.results.reproduce.diff_report import DiffReport, diff_report, shown
from xlora_bench.results.reproduce.records_archive import find_recorded
from xlora_bench.results.reproduce.run_artifacts import RunArtifacts
from xlora_bench.runs.console import console
from xlora_bench.runs.record import Record


def main(arguments: Sequence[str] | None = None) -> int:
    """Print how two runs differ and why; return the exit code (1: they cannot be compared)."""
    parser = Parser(prog="xlora-bench diff", description="Explain why the numbers of two runs differ.")
    parser.add_argument("runs", nargs=2, metavar="RUN", help="a run's folder, its record.json, or its id")
    parser.add_argument(
        "--results-dir",
        type=Path,
        default=Path("multirun"),
        help="where run ids are looked up: a results folder or an archive",
    )
    options = parser.parse_args(arguments)
    try:
        left, right = (find_recorded(run_name, location=options.results_dir) for run_name in options.runs)
        say(diff_report(left, right), left=left, right=right)
    except ValueError as error:
        console(error=True).print(f"error: {error}", soft_wrap=True, markup=False, highlight=False)
        return 1
    return 0


def say(report: DiffReport, *, left: RunArtifacts, right: RunArtifacts) -> None:
    """Print the sections of the report, the outcome of both runs, and the verdict."""
    terminal = console()
    for title, rows in report.sections.items():
        print_section(terminal, title, rows, names=(left.record.run_id, right.record.run_id))
    print_section(
        terminal, "outcome", outcome_rows(left.record, right.record), names=(left.record.run_id, right.record.run_id)
    )
    for line in [*report.diff.lines(), report.verdict]:
        terminal.print(Text(line), soft_wrap=True)


def print_section(terminal: Console, title: str, rows: dict[str, tuple[Any, Any]], *, names: tuple[str, str]) -> None:
    """Print one section as a table of three columns."""
    table = Table(title=title, title_justify="left", title_style="bold")
    for column in ("", *names):
        table.add_column(column, overflow="fold")
    for key, values in rows.items():
        table.add_row(key, *(Text(shown(value)) for value in values))
    terminal.print(table)


def outcome_rows(left: Record, right: Record) -> dict[str, tuple[Any, Any]]:
    """Return status and headline metric (best and last epoch) of two records, and the difference right - left."""
    rows: dict[str, tuple[Any, Any]] = {"status": (left.status, right.status)}
    for when in ("best", "last"):
        names = [record.metrics.get("headline") for record in (left, right)]
        entries = [record.metrics.get(when) or {} for record in (left, right)]
        first, second = (entry.get(name) for entry, name in zip(entries, names, strict=True))
        label = names[0] if names[0] == names[1] else f"{names[0]} / {names[1]}"
        rows[f"{when} {label}"] = (at_epoch(first, entries[0]), at_epoch(second, entries[1]))
        if first is not None and second is not None and names[0] == names[1]:
            rows[f"{when} {label}, difference"] = ("", f"{second - first:+.6g}")
    return rows


def at_epoch(score: float | None, entry: Mapping[str, Any]) -> str:
    """Return a score with all its digits and its epoch."""
    return shown(None) if score is None else f"{score!r} (epoch {entry.get('epoch')})"
