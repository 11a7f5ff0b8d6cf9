"""`hydra/launcher=parallel`: worker processes on this machine."""

import atexit

from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from xlora_bench.sweeps.launchers.launcher import RunLauncher
from xlora_bench.sweeps.launchers.schedule import Executor
from xlora_bench.sweeps.launchers.workers import Pool, check_runs_per_device, start_fork_server


class ParallelLauncher(RunLauncher):
    """Runs jobs in `workers` processes of `threads` threads each, at most `runs_per_device` on a GPU at the same time.

    `choose_slots` says what null means.

    Workers are kept between jobs and launches, so that later runs reuse their in-process caches.

    Raises:
        ValueError: if `runs_per_device` is not a whole number of at least 1; at launch, if `choose_slots` refuses.
    """

    def __init__(self, workers: int | None = None, threads: int | None = None, runs_per_device: int = 1) -> None:
        super().__init__()
        check_runs_per_device(runs_per_device)
        self.workers, self.threads, self.runs_per_device = workers, threads, runs_per_device

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep context and config; start the fork server, whose imports run in the background."""
        start_fork_server()
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def executor(self, config: DictConfig) -> Executor:
        """Return a pool of worker processes."""
        from xlora_bench.sweeps.launchers.placement import choose_slots  # noqa: PLC0415 - slow to import

        numbers = {"workers": self.workers, "threads": self.threads}
        pool = Pool(choose_slots(config, **numbers, runs_per_device=self.runs_per_device))
        atexit.register(pool.close)
        return pool
