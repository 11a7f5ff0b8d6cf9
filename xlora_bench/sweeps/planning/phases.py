"""What a sweep runs, one launch after the other: its runs, or its trials and then its runs."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from hydra.core.config_loader import ConfigLoader
from omegaconf import DictConfig

from xlora_bench.runs.overrides import as_lines
from xlora_bench.sweeps.planning.grid import Grid
from xlora_bench.sweeps.planning.jobs import PlannedRun, read_jobs, varying_keys
from xlora_bench.sweeps.planning.tuning import make_tuner


class Phases:
    """The launches of the sweep of a primary `config`, narrowed by the `arguments` of the command line.

    `runs` and `notes` hold all that is known so far: which values are the best is known after the trials.

    Raises:
        ValueError: if `grid` or `tuning` is wrong, or no run is left.
    """

    def __init__(self, config: DictConfig, loader: ConfigLoader, *, arguments: Sequence[str]) -> None:
        self.grid = Grid(config, loader, arguments=arguments)
        if not self.grid.grid_points:
            raise ValueError("no run is left: the rules of `grid` exclude them all")
        self.tuner = make_tuner(config, self.grid)
        self._left_out = left_out(self.grid)
        self.notes = [*self._left_out]
        if self.tuner is None:
            self.runs = [
                PlannedRun(overrides=tuple(self.grid.lines(grid_point))) for grid_point in self.grid.grid_points
            ]
        else:
            self.runs = [*self.tuner.trials, *self.tuner.reported({})]
        self.grid.warn_of_idle_rules()

    def run(self, jobs: Path) -> Iterator[list[PlannedRun]]:
        """Yield the runs of each launch; `jobs` is the folder in which the jobs say how they ended."""
        if self.tuner is None:
            yield self.runs
            return
        trials = self.tuner.trials
        yield trials
        reported = self.tuner.reported(read_jobs(jobs))
        self.runs = [*trials, *reported]
        self.notes = [*self._left_out, *self.tuner.notes]
        yield reported


def left_out(grid: Grid) -> list[str]:
    """Return a line per run that a rule left out, in the keys that vary, seeds taken together."""
    excluded_lines = [as_lines(excluded.overrides) for excluded in grid.excluded]
    shown = varying_keys([*excluded_lines, *(as_lines(grid_point.overrides) for grid_point in grid.grid_points)]) - {
        "seed"
    }
    lines = {
        " ".join(as_lines({key: value for key, value in excluded.overrides.items() if key in shown})): excluded.reason
        for excluded in grid.excluded
    }
    return [f"Left out: {run}: {reason}" for run, reason in lines.items()]
