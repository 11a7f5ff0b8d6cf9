"""Base of the launchers: the same order, progress, records, failures and exit codes wherever runs are executed.

A launcher of one's own is a subclass of `RunLauncher` with the method `executor`, and a YAML file in the group
`hydra/launcher` that names it; see docs/scale.md.
"""

import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import cloudpickle
from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, configure_log, filter_overrides, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from xlora_bench.runs.sweep_context import deferring_held_runs
from xlora_bench.sweeps.launchers.schedule import Executor, run_calls
from xlora_bench.sweeps.launchers.sent_errors import portable
from xlora_bench.system.checked_logging import check_logging_configs

Job = tuple[int, list[str]]
"""The number and the overrides of a job."""


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Context shared by all jobs of a sweep, sent to each worker."""

    hydra_context: HydraContext
    task_function: TaskFunction
    config: DictConfig

    def job_config(self, number: int, overrides: Sequence[str]) -> DictConfig:
        """Return the config of job `number`, with its overrides."""
        config = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(config):
            config.hydra.job.id = number
            config.hydra.job.num = number
        return config

    def end(self, job: Job, job_return: JobReturn, **more: Any) -> JobReturn:
        """Call `on_job_end`, as `run_job` does, for a job that did not end here; return `job_return`.

        An error of a full disk, which names no path, gets that of the job's folder.
        """
        config = self.job_config(*job)
        folder = Path(str(config.hydra.sweep.dir)) / str(config.hydra.sweep.subdir)
        error = job_return._return_value
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(folder)
        with read_write(config.hydra.runtime), open_dict(config.hydra.runtime):
            config.hydra.runtime.output_dir = str(folder.absolute())
        job_return.overrides = OmegaConf.to_container(config.hydra.overrides.task)  # type: ignore[assignment]
        self.hydra_context.callbacks.on_job_end(config=config, job_return=job_return, **more)
        return job_return


class RunLauncher(Launcher):
    """Runs the jobs of a sweep with the `executor` of a subclass.

    Where several run at the same time, they start in the order of falling estimated cost. They are returned in the
    given order. A failed job does not stop the others. A job whose worker dies is tried again. A run that another
    process trains is asked for again at the end, and waited for when nothing else is left.
    """

    in_process = False
    """Whether the executor calls in this process, so that nothing needs to be pickled."""

    def __init__(self) -> None:
        self._sweep: Sweep | None = None
        self._executor: Executor | None = None

    @property
    def sweep(self) -> Sweep:
        """The sweep, after `setup`."""
        assert self._sweep is not None
        return self._sweep

    def executor(self, config: DictConfig) -> Executor:
        """Return what executes the calls of a sweep; it is kept for all launches of the sweep.

        Raises:
            ValueError: if it cannot: the line names the key and a way out.
        """
        raise NotImplementedError

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep context and config."""
        self._sweep = Sweep(hydra_context=hydra_context, task_function=task_function, config=config)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs; return their `JobReturn`s in the given order."""
        sweep = self.sweep
        setup_globals()
        configure_log(sweep.config.hydra.hydra_logging, sweep.config.hydra.verbose)
        Path(str(sweep.config.hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)
        jobs = [(initial_job_idx + index, list(overrides)) for index, overrides in enumerate(job_overrides)]
        ended: dict[int, JobReturn] = {}
        for job, outcome in self.ended_jobs(jobs):
            ended[job[0]] = outcome if isinstance(outcome, JobReturn) else sweep.end(job, failed(outcome))
        configure_log(sweep.config.hydra.hydra_logging, sweep.config.hydra.verbose)  # the jobs had their own
        return [ended[number] for number in sorted(ended)]

    def ended_jobs(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Any]]:
        """Yield each job with its `JobReturn`, or the exception that kept it from reporting."""
        sweep = self.sweep
        if self._executor is None:
            self._executor = self.executor(sweep.config)
        if self._executor.slots > 1:
            jobs = self.longest_first(jobs)
        calls = Calls(sweep, jobs, in_process=self.in_process)
        names = [" ".join(filter_overrides(overrides)) for _, overrides in jobs]
        try:
            for index, outcome in run_calls(self._executor, calls, names=names):
                yield jobs[index], outcome
        except BaseException:
            self._executor.close()  # Ctrl-C, too: a run resumes from its last whole epoch
            raise

    def longest_first(self, jobs: Sequence[Job]) -> list[Job]:
        """Return jobs in the order of falling estimated cost."""
        from xlora_bench.sweeps.estimate.costs import longest_first  # noqa: PLC0415 - slow to import

        loader = self.sweep.hydra_context.config_loader
        order = longest_first([overrides for _, overrides in jobs], config=self.sweep.config, loader=loader)
        return [jobs[index] for index in order]


class JobCall:
    """The call that runs one job in a worker; `sent` is its sweep, pickled unless the call is made in this process."""

    def __init__(self, sent: Sweep | bytes, sweep: Sweep, job: Job) -> None:
        self.sent, self.number = sent, job[0]
        self._compose = lambda: sweep.job_config(*job)

    @cached_property
    def config(self) -> DictConfig:
        """The config of the job, composed when it is first needed."""
        return self._compose()

    def __getstate__(self) -> dict[str, Any]:
        """Send the config, not what composes it."""
        return {"sent": self.sent, "number": self.number, "config": self.config}

    def __call__(self) -> JobReturn:
        """Run the job; from a pickled sweep, an error of it is returned in the form of `portable`."""
        if isinstance(self.sent, Sweep):
            return run_one(self.sent, self.config)
        job_return = run_one(enter(self.sent), self.config)
        if job_return.status != JobStatus.COMPLETED:
            job_return.return_value = portable(job_return._return_value)  # the public property would raise it
        return job_return


class Calls(Sequence[JobCall]):
    """The calls for the jobs of a sweep."""

    def __init__(self, sweep: Sweep, jobs: Sequence[Job], *, in_process: bool) -> None:
        self.sweep, self.jobs = sweep, jobs
        self._sent = sweep if in_process else cloudpickle.dumps((sweep, Singleton.get_state()))

    def __len__(self) -> int:
        return len(self.jobs)

    def __getitem__(self, index: Any) -> Any:
        return JobCall(self._sent, self.sweep, self.jobs[index])


def run_one(sweep: Sweep, job_config: DictConfig) -> JobReturn:
    """Run one job as Hydra's basic launcher does."""
    HydraConfig.instance().set_config(job_config)
    with deferring_held_runs():
        return run_job(
            hydra_context=sweep.hydra_context,
            task_function=sweep.task_function,
            config=job_config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )


def failed(error: Exception) -> JobReturn:
    """Return a FAILED `JobReturn` with an error."""
    job_return = JobReturn(status=JobStatus.FAILED)
    job_return.return_value = error
    return job_return


@lru_cache(maxsize=1)
def enter(shared: bytes) -> Sweep:
    """Restore Hydra's global state of the main process in this worker; return the sweep."""
    sweep: Sweep
    sweep, state = pickle.loads(shared)
    check_logging_configs()
    setup_globals()
    Singleton.set_state(state)
    return sweep
