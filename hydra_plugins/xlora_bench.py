"""Where Hydra finds this project's launcher and sweepers; what they do is in `xlora_bench.sweeps`."""

from xlora_bench.sweeps import launcher, sweeper


class GridSweeper(sweeper.GridSweeper):
    """`hydra/sweeper=grid`, the default."""


class DryRunSweeper(sweeper.DryRunSweeper):
    """`hydra/sweeper=dry_run`, which `--dry-run` stands for."""


class ParallelLauncher(launcher.ParallelLauncher):
    """`hydra/launcher=parallel`."""
