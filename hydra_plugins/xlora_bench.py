"""Where Hydra finds this project's launchers and sweepers; what they do is in `xlora_bench.sweeps`."""

from xlora_bench.sweeps import sweeper
from xlora_bench.sweeps.launchers import parallel, ray_tasks, serial, slurm, slurm_worker


class GridSweeper(sweeper.GridSweeper):
    """`hydra/sweeper=grid`, the default."""


class DryRunSweeper(sweeper.DryRunSweeper):
    """`hydra/sweeper=dry_run`, which `--dry-run` stands for."""


class SerialLauncher(serial.SerialLauncher):
    """`hydra/launcher=serial`, the default."""


class ParallelLauncher(parallel.ParallelLauncher):
    """`hydra/launcher=parallel`."""


class RayLauncher(ray_tasks.RayLauncher):
    """`hydra/launcher=ray`."""


class SlurmLauncher(slurm.SlurmLauncher):
    """`hydra/launcher=slurm`."""


class SlurmWorkerLauncher(slurm_worker.SlurmWorkerLauncher):
    """`hydra/launcher=slurm_worker`: a task of the array that `slurm` submits."""
