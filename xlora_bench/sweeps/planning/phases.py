"""Phases of a sweep: one launch of its runs, or with `tuning:` a launch of the trials, then one of the runs."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from hydra.core.config_loader import ConfigLoader
from omegaconf import DictConfig

from xlora_bench.runs.overrides import as_lines
from xlora_bench.sweeps.planning.grid import Grid
from xlora_bench.sweeps.planning.jobs import PlannedRun, read_jobs, varying_keys
from xlora_bench.sweeps.planning.tuning import make_tuner


class Phases:
    """The launches of the sweep of a primary `config` with the command line `arguments`.

    `runs` and `notes` hold what is known so far; the tuned values are known only after the trials.

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

    def leave_out(self, reasons: Mapping[PlannedRun, str]) -> None:
        """Take runs out of a sweep without trials; the report names each with its reason."""
        shown = varying_keys([list(run.overrides) for run in self.runs]) - {"seed"}
        lines = {" ".join(line for line in run.overrides if line.partition("=")[0] in shown): run for run in reasons}
        self.runs = [run for run in self.runs if run not in reasons]
        self.notes += [f"Left out: {line}: {reasons[run]}" for line, run in lines.items()]

    def run(self, jobs: Path) -> Iterator[list[PlannedRun]]:
        """Yield the runs of each launch; `jobs` is the folder of the job files."""
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
    """Return one line per excluded run: varying keys and reason; runs that differ only in the seed share a line."""
    excluded_lines = [as_lines(excluded.overrides) for excluded in grid.excluded]
    shown = varying_keys([*excluded_lines, *(as_lines(grid_point.overrides) for grid_point in grid.grid_points)]) - {
        "seed"
    }
    lines = {
        " ".join(as_lines({key: value for key, value in excluded.overrides.items() if key in shown})): excluded.reason
        for excluded in grid.excluded
    }
    return [f"Left out: {run}: {reason}" for run, reason in lines.items()]
