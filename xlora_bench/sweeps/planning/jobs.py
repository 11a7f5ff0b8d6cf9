"""Jobs of a sweep: planned runs, and one small file per ended job, because jobs may run in other processes."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from xlora_bench.system.io import write_atomically

ORDER = "order.txt"


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


def read_job(path: Path) -> Job:
    """Return the job in the file `path`."""
    return Job(**json.loads(path.read_text(encoding="utf-8")))


def read_jobs(folder: Path) -> dict[int, Job]:
    """Return the jobs that have ended, by number."""
    jobs = [read_job(path) for path in folder.glob("[0-9]*.json")]
    return {job.number: job for job in sorted(jobs, key=lambda job: job.number)}


def clear_jobs(folder: Path) -> None:
    """Delete the job files of an earlier sweep."""
    for path in (*folder.glob("[0-9]*.json"), folder / ORDER):
        path.unlink(missing_ok=True)


class EndedJobs:
    """The ended jobs of a sweep, of which each process reads each file once.

    The job files hold the jobs. The file `ORDER` beside them names their numbers, a line each in the order of their
    ends, so that a process reads only the files that are new to it. It may be lost: a process starts with all files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.by_number: dict[int, Job] = {}
        self.trained: set[int] = set()
        self._scores: dict[tuple[str, ...], dict[int, float]] = {}
        self._read: int | None = None

    def end(self, job: Job, *, alone: bool = False) -> None:
        """Write an ended job, and read those that other processes have written; the caller holds the folder's lock.

        With `alone` no other job is read, and no lock is needed: a worker counts only its own.
        """
        job.write(self.folder)
        if alone:
            self.add(job)
            return
        path = self.folder / ORDER
        if self._read is None:
            new = list(read_jobs(self.folder).values())
        else:
            numbers = _whole_lines(path, start=self._read)
            new = [read_job(self.folder / f"{number}.json") for number in numbers if int(number) != job.number]
            new.append(job)
        with path.open("ab") as file:
            file.write(b"%d\n" % job.number)
            self._read = file.tell()
        for each in new:
            self.add(each)

    def add(self, job: Job) -> None:
        """Count a job, in place of an earlier one with its number."""
        earlier = self.by_number.get(job.number, job)
        self._scores.get(earlier.group, {}).pop(job.number, None)
        self.by_number[job.number] = job
        if job.status == "completed" and job.score is not None:
            self._scores.setdefault(job.group, {})[job.number] = job.score
        (self.trained.discard if job.reused else self.trained.add)(job.number)

    def scores(self, job: Job) -> list[float]:
        """Return the scores of the completed jobs that differ from `job` at most in the seed."""
        return list(self._scores.get(job.group, {}).values())


def _whole_lines(path: Path, *, start: int) -> list[str]:
    """Return the lines from byte `start` on; none if the file is gone."""
    if not path.exists():
        return []
    with path.open("rb") as file:
        file.seek(start)
        return file.read().decode().split()


def varying_keys(runs: Sequence[Sequence[str]]) -> set[str]:
    """Return the override keys in which runs differ; all keys for a single run."""
    values: dict[str, set[str]] = {}
    for overrides in runs:
        for override in overrides:
            key, _, value = override.partition("=")
            values.setdefault(key, set()).add(value)
    return {key for key, distinct in values.items() if len(distinct) > 1 or len(runs) == 1}
