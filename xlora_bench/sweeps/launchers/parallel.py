"""`hydra/launcher=parallel`: the runs of a sweep in worker processes, everything else as in the serial run."""

import atexit
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import cloudpickle
from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, configure_log, filter_overrides, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from xlora_bench.sweeps.launchers.workers import Pool, chained, portable, start_fork_server


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What every job of a sweep needs, in any process."""

    hydra_context: HydraContext
    task_function: TaskFunction
    config: DictConfig

    def job_config(self, number: int, overrides: Sequence[str]) -> DictConfig:
        """Return the config of job `number`."""
        config = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(config):
            config.hydra.job.id = number
            config.hydra.job.num = number
        return config


class ParallelLauncher(Launcher):
    """Runs jobs in `workers` processes of `threads` threads each; `choose_slots` says what null stands for.

    Jobs start longest first, end in any order, and are returned in the order given. One that fails leaves the others
    alone; one whose worker dies is tried once more. Workers stay between jobs and between launches, so that what a run
    loaded serves the next.

    Raises:
        ValueError: at launch, if the threads of all workers would be more than the cores.
    """

    def __init__(self, workers: int | None = None, threads: int | None = None) -> None:
        self.workers = workers
        self.threads = threads
        self._sweep: Sweep | None = None
        self._pool: Pool | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra gives before the first launch; meanwhile the workers' imports begin."""
        start_fork_server()
        self._sweep = Sweep(hydra_context=hydra_context, task_function=task_function, config=config)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs and return how they ended, in their order."""
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
        calls = [partial(run_in_worker, shared, number, overrides) for number, overrides in jobs]
        names = [" ".join(filter_overrides(overrides)) for _, overrides in jobs]
        ended: dict[int, JobReturn] = {}
        try:
            for index, outcome in pool.run(calls, names=names):
                returned = isinstance(outcome, JobReturn)
                ended[order[index]] = received(outcome) if returned else failed(sweep, *jobs[index], outcome)
        except BaseException:
            pool.close()  # Ctrl-C: every run goes on from its last whole epoch when it is started again
            raise
        return [ended[index] for index in sorted(ended)]

    def _workers(self, config: DictConfig) -> Pool:
        from xlora_bench.sweeps.launchers.placement import choose_slots  # noqa: PLC0415 - slow to import

        if self._pool is None:
            self._pool = Pool(choose_slots(config, workers=self.workers, threads=self.threads))
            atexit.register(self._pool.close)
        return self._pool


def run_in_worker(shared: bytes, number: int, overrides: list[str]) -> JobReturn:
    """Run one job as Hydra's own launcher does; an error of the job comes back as `portable` makes it."""
    sweep = _enter(shared)
    job_config = sweep.job_config(number, overrides)
    HydraConfig.instance().set_config(job_config)
    job_return = run_job(
        hydra_context=sweep.hydra_context,
        task_function=sweep.task_function,
        config=job_config,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )
    if job_return.status != JobStatus.COMPLETED:
        job_return.return_value = portable(job_return._return_value)  # the public property raises it
    return job_return


def received(job_return: JobReturn) -> JobReturn:
    """Return what `run_in_worker` sent, its error as it was raised."""
    if job_return.status != JobStatus.COMPLETED:
        job_return.return_value = chained(job_return._return_value)
    return job_return


def failed(sweep: Sweep, number: int, overrides: list[str], error: Exception) -> JobReturn:
    """Return the failure of a job that could not report itself how it ended, and call the callbacks."""
    config = sweep.job_config(number, overrides)
    folder = Path(str(config.hydra.sweep.dir)) / str(config.hydra.sweep.subdir)
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
    """Make this process, a worker, know what the process that started the sweep knows."""
    sweep, state = pickle.loads(shared)
    setup_globals()
    Singleton.set_state(state)
    return sweep
