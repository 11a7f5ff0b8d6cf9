"""What each job of a sweep tells the others: one small file, because jobs may run in other processes."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from xlora_bench.system.io import write_atomically


@dataclass(frozen=True, kw_only=True)
class Job:
    """How job `number` ended; `run` is None if it failed before its identity was known."""

    number: int
    overrides: list[str]
    choices: dict[str, str | None]
    run_id: str | None
    status: str
    score: float | None
    error: str | None
    reused: bool

    def write(self, folder: Path) -> None:
        """Write the job into the sweep's folder of jobs."""
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / f"{self.number}.json", json.dumps(asdict(self)) + "\n")

    @property
    def group(self) -> tuple[str, ...]:
        """The overrides without the seed: what jobs of one mean have in common."""
        return tuple(override for override in self.overrides if not override.startswith("seed="))


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """A run that a sweep is going to run: its overrides, and what it is in a sweep with `tuning:`.

    `tuning` holds `trial`, or `fixed` and `tuned`, both where the best trial has the values that were fixed.
    """

    overrides: tuple[str, ...]
    tuning: tuple[str, ...] = ()


def read_jobs(folder: Path) -> dict[int, Job]:
    """Return the jobs that have ended, by number."""
    jobs = [Job(**json.loads(path.read_text(encoding="utf-8"))) for path in folder.glob("[0-9]*.json")]
    return {job.number: job for job in sorted(jobs, key=lambda job: job.number)}


def clear_jobs(folder: Path) -> None:
    """Remove what an earlier sweep left in this folder of jobs."""
    for path in folder.glob("[0-9]*.json"):
        path.unlink()


def varying_keys(runs: Sequence[Sequence[str]]) -> set[str]:
    """Return the keys in which the runs of a sweep differ; all of them for a single run."""
    values: dict[str, set[str]] = {}
    for overrides in runs:
        for override in overrides:
            key, _, value = override.partition("=")
            values.setdefault(key, set()).add(value)
    return {key for key, result in values.items() if len(result) > 1 or len(runs) == 1}
