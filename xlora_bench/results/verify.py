"""`python -m xlora_bench.results.verify TABLE`: train a sample of a table's cells again and compare bit by bit."""

import argparse
import math
import random
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table
from rich.text import Text

from xlora_bench.results.explain import Explanation, around, explain
from xlora_bench.results.progress import console
from xlora_bench.results.record import Record
from xlora_bench.results.runs import Run
from xlora_bench.results.summary import find_recorded, recorded_in

COLUMNS = ("cell", "what it is", "recorded", "again", "identical", "largest difference", "why")


@dataclass(frozen=True, kw_only=True)
class Check:
    """A recorded cell, the same cell trained again, and how the two differ; or the `error` that prevented it."""

    recorded: Run
    again: Run | None = None
    explanation: Explanation | None = None
    error: str | None = None

    @property
    def identical(self) -> bool:
        """Whether status, metrics of every epoch, predictions and trained tensors are the same to the bit."""
        return self.explanation is not None and self.explanation.outcome.identical

    @property
    def excused(self) -> bool:
        """Whether another machine, other versions or other threads may explain a difference; other code may not."""
        return self.explanation is not None and bool(around(self.explanation.sections).keys() - {"code"})

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return self.identical or (self.error is None and self.excused)

    def row(self) -> tuple[str, ...]:
        """Return the row of the table."""
        record = self.recorded.record
        start = (record.cell, described(record), score(record))
        if self.again is None or self.explanation is None:
            return (*start, "-", "no", "-", str(self.error))
        outcome = self.explanation.outcome
        gap = "0" if outcome.identical else "unknown" if math.isnan(outcome.difference) else f"{outcome.difference:.3g}"
        why = self.explanation.verdict if not outcome.identical else compared_with(self)
        return (*start, score(self.again.record), "yes" if outcome.identical else "NO", gap, why)


def main(arguments: Sequence[str] | None = None) -> int:
    """Verify a table and print what came of it; return the exit code (1: a number that did not come again)."""
    parser = argparse.ArgumentParser(
        prog="python -m xlora_bench.results.verify",
        description="Train a sample of recorded cells again, elsewhere, and compare bit by bit. Exit code 1 if a cell "
        "on the same machine, versions and threads is not identical, or could not be trained.",
    )
    parser.add_argument("table", type=Path, help="RESULTS_DIR/reports/<name>, RESULTS_DIR, or a summary (records.json)")
    parser.add_argument("--sample", type=int, default=3, help="how many cells (default 3)")
    parser.add_argument("--seed", type=int, default=0, help="which cells (default 0)")
    parser.add_argument("--cells", nargs="+", default=[], metavar="ID", help="these cells instead of a sample")
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
        cells = chosen(runs, given=options.cells, sample=options.sample, seed=options.seed)
        recorded = lookup(runs, options.table)
        checks = verify(cells, recorded=recorded, data_dir=options.data_dir, trust=options.trust)
    except ValueError as error:
        console(error=True).print(f"error: {error}", soft_wrap=True, markup=False, highlight=False)
        return 1
    say(checks)
    return 0 if all(check.passed for check in checks) else 1


def verify(
    cells: Sequence[Run], *, recorded: Callable[[str], Run], data_dir: Path | None, trust: Sequence[str] = ()
) -> list[Check]:
    """Train each of `cells` again in a temporary folder and compare; an error in one does not stop the others.

    Raises:
        ValueError: before anything is trained, if a record names what is neither a class of this package nor of a
            module in `trust`.
    """
    check_all(cells, trust=trust)
    checks = []
    for run in cells:
        with tempfile.TemporaryDirectory(prefix="xlora-bench-verify-") as folder:
            checks.append(checked(run, recorded=recorded, folder=Path(folder), data_dir=data_dir, trust=trust))
    return checks


def check_all(cells: Sequence[Run], *, trust: Sequence[str]) -> None:
    """Check what the records of `cells` name."""
    from xlora_bench.quiet import quiet  # noqa: PLC0415 - before the imports that talk

    quiet()
    from xlora_bench.results.trust import BASES, check_recorded  # noqa: PLC0415 - slow to import

    groups = [group for group in BASES if group != "logger"]  # nothing is logged, and a summary has no loggers
    for run in cells:
        check_recorded(run.record.config, groups, of=f"cell {run.record.cell}", trust=trust)


def checked(
    run: Run, *, recorded: Callable[[str], Run], folder: Path, data_dir: Path | None, trust: Sequence[str] = ()
) -> Check:
    """Train one cell again and compare."""
    from xlora_bench.results.retrain import retrain  # noqa: PLC0415 - slow to import

    try:
        again = retrain(run, recorded=recorded, folder=folder, data_dir=data_dir, trust=trust)
    except Exception as error:
        return Check(recorded=run, error=f"{type(error).__name__}: {error}")
    return Check(recorded=run, again=again, explanation=explain(run, again))


def chosen(runs: Mapping[str, Run], *, given: Sequence[str], sample: int, seed: int) -> list[Run]:
    """Return the given cells, or a random sample of those that ended (done or collapsed).

    Raises:
        ValueError: if a given cell is not among them, or none has ended.
    """
    ended = sorted(cell for cell, run in runs.items() if run.record.status != "failed")
    if unknown := [cell for cell in given if cell not in runs]:
        raise ValueError(f"`--cells {unknown[0]}` is not among the {len(runs)} recorded cells, such as {ended[:3]}")
    if given:
        return [runs[cell] for cell in given]
    if not ended or sample < 1:
        raise ValueError(f"`--sample {sample}` of {len(ended)} cells that ended leaves nothing to verify")
    return [runs[cell] for cell in random.Random(seed).sample(ended, min(sample, len(ended)))]


def lookup(runs: Mapping[str, Run], place: Path) -> Callable[[str], Run]:
    """Return what finds the run of a parent cell: among `runs`, else in the results folder."""

    def find(cell: str) -> Run:
        return runs[cell] if cell in runs else find_recorded(cell, place=place)

    return find


def say(checks: Sequence[Check]) -> None:
    """Print the table and the verdict."""
    table = Table()
    for column in COLUMNS:
        table.add_column(column, overflow="fold")
    for check in checks:
        table.add_row(*(Text(cell) for cell in check.row()))
    terminal = console()
    terminal.print(table)
    count = sum(check.identical for check in checks)
    excused = sum(check.passed and not check.identical for check in checks)
    text = f"{count} of {len(checks)} cells came again bit-identical"
    terminal.print(text + (f"; {excused} on another machine, versions or threads differ" if excused else ""))


def described(record: Record) -> str:
    """Return in a line what a cell is."""
    choices = [
        str(record.choices[name]) for name in ("model", "task", "adapter", "init_scheme") if name in record.choices
    ]
    rank = record.config.get("adapter", {}).get("rank")
    return " ".join([*choices, *([f"r{rank}"] if rank is not None else []), f"seed {record.seed}"])


def score(record: Record) -> str:
    """Return the headline metric at its best epoch, with all its digits."""
    value = (record.metrics.get("best") or {}).get(record.metrics.get("headline"))
    return record.status if value is None else f"{value!r}" if record.status == "done" else f"{value!r} {record.status}"


def compared_with(check: Check) -> str:
    """Return what was compared and what had changed meanwhile without an effect."""
    assert check.explanation is not None
    settings = around(check.explanation.sections)
    return (
        "same "
        + ", ".join(check.explanation.outcome.compared)
        + (f"; though {', '.join(settings)} changed" if settings else "")
    )


if __name__ == "__main__":
    sys.exit(main())
