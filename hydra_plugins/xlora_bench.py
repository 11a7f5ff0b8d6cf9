"""Where Hydra finds this project's launcher and sweepers; what they do is in `xlora_bench.sweeps`."""

from xlora_bench.sweeps import sweeper
from xlora_bench.sweeps.launchers import parallel as launcher


class GridSweeper(sweeper.GridSweeper):
    """`hydra/sweeper=grid`, the default."""


class DryRunSweeper(sweeper.DryRunSweeper):
    """`hydra/sweeper=dry_run`, which `--dry-run` stands for."""


class ParallelLauncher(launcher.ParallelLauncher):
    """`hydra/launcher=parallel`."""
