"""Jobs of a sweep: planned runs, and one small file per ended job, because jobs may run in other processes."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from xlora_bench.system.io import write_atomically


@dataclass(frozen=True, kw_only=True)
class Job:
    """How job `number` ended; `run_id` is None if it failed before the config hash was known."""

    number: int
    overrides: list[str]
    choices: dict[str, str | None]
    run_id: str | None
    status: str
    score: float | None
    error: str | None
    reused: bool

    def write(self, folder: Path) -> None:
        """Write the job to `<folder>/<number>.json`."""
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / f"{self.number}.json", json.dumps(asdict(self)) + "\n")

    @property
    def group(self) -> tuple[str, ...]:
        """The overrides without the seed, equal for all jobs of one mean over seeds."""
        return tuple(override for override in self.overrides if not override.startswith("seed="))


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """A planned run of a sweep: its overrides, and its roles in a sweep with `tuning:`.

    `tuning` holds `trial`, or `fixed`, `tuned` or both: both if the best trial has the fixed values.
    """

    overrides: tuple[str, ...]
    tuning: tuple[str, ...] = ()


def read_jobs(folder: Path) -> dict[int, Job]:
    """Return the jobs that have ended, by number."""
    jobs = [Job(**json.loads(path.read_text(encoding="utf-8"))) for path in folder.glob("[0-9]*.json")]
    return {job.number: job for job in sorted(jobs, key=lambda job: job.number)}


def clear_jobs(folder: Path) -> None:
    """Delete the job files of an earlier sweep."""
    for path in folder.glob("[0-9]*.json"):
        path.unlink()


def varying_keys(runs: Sequence[Sequence[str]]) -> set[str]:
    """Return the override keys in which runs differ; all keys for a single run."""
    values: dict[str, set[str]] = {}
    for overrides in runs:
        for override in overrides:
            key, _, value = override.partition("=")
            values.setdefault(key, set()).add(value)
    return {key for key, distinct in values.items() if len(distinct) > 1 or len(runs) == 1}
