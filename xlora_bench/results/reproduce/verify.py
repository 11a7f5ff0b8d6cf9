"""Verify: retrain a sample of recorded runs in temporary folders, and compare bit by bit."""

import math
import random
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from xlora_bench.results.reproduce.diff_report import DiffReport, around, diff_report
from xlora_bench.results.reproduce.records_archive import find_recorded
from xlora_bench.results.reproduce.run_artifacts import RunArtifacts
from xlora_bench.runs.record import OLD_COMMIT, SCHEMA, Record


@dataclass(frozen=True, kw_only=True)
class Check:
    """A recorded run, its retrained run `again`, and the report on both; or the `error` that prevented it."""

    recorded: RunArtifacts
    again: RunArtifacts | None = None
    report: DiffReport | None = None
    error: str | None = None

    @property
    def identical(self) -> bool:
        """Whether status, metrics of every epoch, predictions and trained tensors are bit-identical."""
        return self.report is not None and self.report.diff.identical

    @property
    def excused(self) -> bool:
        """Whether another machine, version or number of threads may explain a difference; other code is no excuse."""
        return self.report is not None and bool(around(self.report.sections).keys() - {"code"})

    @property
    def passed(self) -> bool:
        """Whether the run is identical, or differs with an excuse."""
        return self.identical or (self.error is None and self.excused)

    def row(self) -> tuple[str, ...]:
        """Return the texts of the table row."""
        record = self.recorded.record
        first = (record.run_id, described(record), score(record))
        if self.again is None or self.report is None:
            return (*first, "-", "no", "-", str(self.error))
        outcome = self.report.diff
        gap = "0" if outcome.identical else "unknown" if math.isnan(outcome.difference) else f"{outcome.difference:.3g}"
        why = self.report.verdict if not outcome.identical else compared_with(self)
        return (*first, score(self.again.record), "yes" if outcome.identical else "NO", gap, why)


def verify(
    selected: Sequence[RunArtifacts],
    *,
    recorded: Callable[[str], RunArtifacts],
    data_dir: Path | None,
    trust: Sequence[str] = (),
) -> list[Check]:
    """Retrain each of `selected` in a temporary folder and compare; an error in one does not stop the others.

    Raises:
        ValueError: before any training, if a record is of an older schema, or names a class that is neither of this
            package nor of a module in `trust`.
    """
    check_all(selected, trust=trust)
    checks = []
    for run in selected:
        with tempfile.TemporaryDirectory(prefix="xlora-bench-verify-") as folder:
            checks.append(checked(run, recorded=recorded, folder=Path(folder), data_dir=data_dir, trust=trust))
    return checks


def check_all(selected: Sequence[RunArtifacts], *, trust: Sequence[str]) -> None:
    """Check the schema of the records of `selected`, and the classes that they name."""
    from xlora_bench.system.log_levels import set_log_levels  # noqa: PLC0415 - before imports that print

    set_log_levels()
    from xlora_bench.training.trust import BASES, check_recorded  # noqa: PLC0415 - slow to import

    groups = [group for group in BASES if group != "logger"]  # not used; archives have none
    for run in selected:
        if run.record.schema != SCHEMA:
            raise ValueError(
                f"run {run.record.run_id} has a record of schema {run.record.schema}, whose numbers the present code "
                f"does not repeat to the bit; verify it with the code of commit {OLD_COMMIT}"
            )
        check_recorded(run.record.config, groups, of=f"run {run.record.run_id}", trust=trust)


def checked(
    run: RunArtifacts,
    *,
    recorded: Callable[[str], RunArtifacts],
    folder: Path,
    data_dir: Path | None,
    trust: Sequence[str] = (),
) -> Check:
    """Retrain one run and compare it; an exception becomes the `error` of the check."""
    from xlora_bench.results.reproduce.retrain import retrain  # noqa: PLC0415 - slow to import

    try:
        again = retrain(run, recorded=recorded, folder=folder, data_dir=data_dir, trust=trust)
        return Check(recorded=run, again=again, report=diff_report(run, again))
    except Exception as error:
        return Check(recorded=run, error=f"{type(error).__name__}: {error}")


def chosen(runs: Mapping[str, RunArtifacts], *, given: Sequence[str], sample: int, seed: int) -> list[RunArtifacts]:
    """Return the `given` runs, or a random sample of the completed and collapsed ones.

    Raises:
        ValueError: if a given run is not among `runs`, or the sample is empty.
    """
    ended = sorted(run_id for run_id, run in runs.items() if run.record.status != "failed")
    if unknown := [run_id for run_id in given if run_id not in runs]:
        raise ValueError(f"`--runs {unknown[0]}` is not among the {len(runs)} recorded runs, such as {ended[:3]}")
    if given:
        return [runs[run_id] for run_id in given]
    if not ended or sample < 1:
        raise ValueError(f"`--sample {sample}` of {len(ended)} runs that ended leaves nothing to verify")
    return [runs[run_id] for run_id in random.Random(seed).sample(ended, min(sample, len(ended)))]


def lookup(runs: Mapping[str, RunArtifacts], location: Path) -> Callable[[str], RunArtifacts]:
    """Return a function that finds a run by its id: in `runs`, else at `location`."""

    def find(run_id: str) -> RunArtifacts:
        return runs[run_id] if run_id in runs else find_recorded(run_id, location=location)

    return find


def described(record: Record) -> str:
    """Return one line that describes a run: model, task, adapter, init scheme, rank, seed."""
    choices = [
        str(record.choices[name]) for name in ("model", "task", "adapter", "init_scheme") if name in record.choices
    ]
    rank = record.config.get("adapter", {}).get("rank")
    return " ".join([*choices, *([f"r{rank}"] if rank is not None else []), f"seed {record.seed}"])


def score(record: Record) -> str:
    """Return the headline metric at its best epoch with all digits, and the status unless it is `completed`."""
    value = (record.metrics.get("best") or {}).get(record.metrics.get("headline"))
    return (
        record.status
        if value is None
        else f"{value!r}"
        if record.status == "completed"
        else f"{value!r} {record.status}"
    )


def compared_with(check: Check) -> str:
    """Return what was compared, and which code, versions or machine entries changed without an effect."""
    assert check.report is not None
    settings = around(check.report.sections)
    return (
        "same "
        + ", ".join(check.report.diff.compared)
        + (f"; though {', '.join(settings)} changed" if settings else "")
    )
