"""`hydra/launcher=parallel`: worker processes on this machine."""

import atexit

from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from xlora_bench.sweeps.launchers.launcher import RunLauncher
from xlora_bench.sweeps.launchers.schedule import Executor
from xlora_bench.sweeps.launchers.workers import Pool, start_fork_server


class ParallelLauncher(RunLauncher):
    """Runs jobs in `workers` processes of `threads` threads each; see `choose_slots` for null.

    Workers are kept between jobs and launches, so that later runs reuse their in-process caches.

    Raises:
        ValueError: at launch, if `workers` or `threads` is below 1, or workers x threads is more than the cores.
    """

    def __init__(self, workers: int | None = None, threads: int | None = None) -> None:
        super().__init__()
        self.workers = workers
        self.threads = threads

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep context and config; start the fork server, whose imports run in the background."""
        start_fork_server()
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def executor(self, config: DictConfig) -> Executor:
        """Return a pool of worker processes."""
        from xlora_bench.sweeps.launchers.placement import choose_slots  # noqa: PLC0415 - slow to import

        pool = Pool(choose_slots(config, workers=self.workers, threads=self.threads))
        atexit.register(pool.close)
        return pool
