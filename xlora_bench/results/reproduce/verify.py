"""Train a sample of recorded runs again, elsewhere, and compare bit by bit."""

import math
import random
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from xlora_bench.results.reproduce.diff_report import Explanation, around, explain
from xlora_bench.results.reproduce.records_archive import find_recorded
from xlora_bench.results.reproduce.run_artifacts import Run
from xlora_bench.runs.record import Record


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
    from xlora_bench.system.log_levels import quiet  # noqa: PLC0415 - before the imports that talk

    quiet()
    from xlora_bench.training.trust import BASES, check_recorded  # noqa: PLC0415 - slow to import

    groups = [group for group in BASES if group != "logger"]  # nothing is logged, and a summary has no loggers
    for run in cells:
        check_recorded(run.record.config, groups, of=f"cell {run.record.cell}", trust=trust)


def checked(
    run: Run, *, recorded: Callable[[str], Run], folder: Path, data_dir: Path | None, trust: Sequence[str] = ()
) -> Check:
    """Train one cell again and compare."""
    from xlora_bench.results.reproduce.retrain import retrain  # noqa: PLC0415 - slow to import

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
