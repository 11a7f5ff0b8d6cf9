"""`hydra/launcher=parallel`: a Hydra launcher that runs the jobs of a sweep in worker processes."""

import atexit
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import cloudpickle
from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, configure_log, filter_overrides, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from xlora_bench.sweeps.launchers.workers import Call, Pool, chained, portable, start_fork_server
from xlora_bench.system.checked_logging import check_logging_configs


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


class ParallelLauncher(Launcher):
    """Runs jobs in `workers` processes of `threads` threads each; see `choose_slots` for null.

    Jobs start in the order of falling estimated cost, and are returned in the given order. A failed job does not stop
    the others. A job whose worker dies is retried once. Workers are kept between jobs and launches, so that later runs
    reuse their in-process caches.

    Raises:
        ValueError: at launch, if `workers` or `threads` is below 1, or workers x threads is more than the cores.
    """

    def __init__(self, workers: int | None = None, threads: int | None = None) -> None:
        self.workers = workers
        self.threads = threads
        self._sweep: Sweep | None = None
        self._pool: Pool | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Store context and config; start the fork server, whose imports run in the background."""
        start_fork_server()
        self._sweep = Sweep(hydra_context=hydra_context, task_function=task_function, config=config)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs; return their `JobReturn`s in the given order."""
        from xlora_bench.sweeps.estimate.costs import longest_first  # noqa: PLC0415 - slow to import

        assert self._sweep is not None
        sweep = self._sweep
        setup_globals()
        configure_log(sweep.config.hydra.hydra_logging, sweep.config.hydra.verbose)
        Path(str(sweep.config.hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)
        pool = self._workers(sweep.config)
        shared = cloudpickle.dumps((sweep, Singleton.get_state()))
        order = longest_first(job_overrides, config=sweep.config, loader=sweep.hydra_context.config_loader)
        jobs = [(initial_job_idx + index, list(job_overrides[index])) for index in order]
        calls = Calls(sweep, shared, jobs)
        names = [" ".join(filter_overrides(overrides)) for _, overrides in jobs]
        ended: dict[int, JobReturn] = {}
        try:
            for index, outcome in pool.run(calls, names=names):
                returned = isinstance(outcome, JobReturn)
                ended[order[index]] = received(outcome) if returned else failed(sweep, *jobs[index], outcome)
        except BaseException:
            pool.close()  # Ctrl-C, too: a run resumes from its last whole epoch
            raise
        return [ended[index] for index in sorted(ended)]

    def _workers(self, config: DictConfig) -> Pool:
        from xlora_bench.sweeps.launchers.placement import choose_slots  # noqa: PLC0415 - slow to import

        if self._pool is None:
            self._pool = Pool(choose_slots(config, workers=self.workers, threads=self.threads))
            atexit.register(self._pool.close)
        return self._pool


class Calls(Sequence[Call]):
    """The calls of `run_in_worker` for the jobs of a sweep; the config of a job is made when it is sent."""

    def __init__(self, sweep: Sweep, shared: bytes, jobs: Sequence[tuple[int, list[str]]]) -> None:
        self.sweep, self.shared, self.jobs = sweep, shared, jobs

    def __len__(self) -> int:
        return len(self.jobs)

    def __getitem__(self, index: Any) -> Any:
        return partial(run_in_worker, self.shared, self.sweep.job_config(*self.jobs[index]))


def run_in_worker(shared: bytes, job_config: DictConfig) -> JobReturn:
    """Run one job as Hydra's basic launcher does; an error of the job is returned in the form of `portable`."""
    sweep = _enter(shared)
    check_logging_configs()
    HydraConfig.instance().set_config(job_config)
    job_return = run_job(
        hydra_context=sweep.hydra_context,
        task_function=sweep.task_function,
        config=job_config,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )
    if job_return.status != JobStatus.COMPLETED:
        job_return.return_value = portable(job_return._return_value)  # the public property would raise it
    return job_return


def received(job_return: JobReturn) -> JobReturn:
    """Return the result of `run_in_worker`, with its error chained again."""
    if job_return.status != JobStatus.COMPLETED:
        job_return.return_value = chained(job_return._return_value)
    return job_return


def failed(sweep: Sweep, number: int, overrides: list[str], error: Exception) -> JobReturn:
    """Return a FAILED `JobReturn` for a job that could not report itself; call `on_job_end` for it.

    An error of a full disk, which names no path, gets that of the job's folder.
    """
    config = sweep.job_config(number, overrides)
    folder = Path(str(config.hydra.sweep.dir)) / str(config.hydra.sweep.subdir)
    if isinstance(error, OSError) and error.filename is None:
        error.filename = str(folder)
    with read_write(config.hydra.runtime), open_dict(config.hydra.runtime):
        config.hydra.runtime.output_dir = str(folder.absolute())
    job_return = JobReturn(
        overrides=OmegaConf.to_container(config.hydra.overrides.task),  # type: ignore[arg-type]
        status=JobStatus.FAILED,
    )
    job_return.return_value = error
    sweep.hydra_context.callbacks.on_job_end(config=config, job_return=job_return)
    return job_return


@lru_cache(maxsize=1)
def _enter(shared: bytes) -> Sweep:
    """Restore Hydra's global state of the main process in this worker; return the sweep."""
    sweep, state = pickle.loads(shared)
    setup_globals()
    Singleton.set_state(state)
    return sweep
