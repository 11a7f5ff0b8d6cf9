"""`hydra/launcher=slurm_worker`: a task of the array that `hydra/launcher=slurm` submits."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig

from xlora_bench.sweeps.launchers.launcher import Job, RunLauncher
from xlora_bench.sweeps.launchers.workers import Pool, WorkerSlot


class SlurmWorkerLauncher(RunLauncher):
    """A task of the array of `SlurmLauncher`: number `index` of `workers`, on the runs of the `sweep`.

    It begins with every `workers`-th run and goes on with those of the other tasks. It trains `runs_per_device` runs at
    the same time, each in a process of its own. It ends when each run has ended or is trained by another process.
    """

    def __init__(
        self, index: int, workers: int, sweep: str, threads: int = 1, runs_per_device: int = 1, **_: Any
    ) -> None:
        super().__init__()
        self.index, self.workers, self.threads, self.runs_per_device = index, workers, threads, runs_per_device

    def executor(self, config: DictConfig) -> "UnlessEnded":
        """Return the worker processes."""
        slots = [WorkerSlot(threads=self.threads)] * self.runs_per_device
        return UnlessEnded(slots, folder=Path(str(config.hydra.sweep.dir)) / "jobs")

    def ended_jobs(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Any]]:
        """Run the jobs of this task first."""
        own = [job for job in jobs if job[0] % self.workers == self.index]
        others = [job for job in jobs if job[0] % self.workers != self.index]
        first = self.index * len(others) // self.workers  # each begins elsewhere
        yield from super().ended_jobs([*own, *others[first:], *others[:first]])


class UnlessEnded(Pool):
    """A pool that leaves out the jobs that another task has ended, and does not wait for runs of living processes."""

    waits = False

    def __init__(self, slots: Sequence[WorkerSlot], *, folder: Path) -> None:
        super().__init__(slots)
        self.folder = folder
        self._left_out: list[tuple[int, Any]] = []

    def submit(self, index: int, call: Any) -> None:
        """Send a call, unless there is a file of its job."""
        if (self.folder / f"{call.number}.json").exists():
            self._left_out.append((index, JobReturn(status=JobStatus.COMPLETED)))
        else:
            super().submit(index, call)

    def wait(self, timeout: float | None) -> list[tuple[int, Any]]:
        """Return the calls that ended or were left out."""
        left_out, self._left_out = self._left_out, []
        return left_out or super().wait(timeout)
