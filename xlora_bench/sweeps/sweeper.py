"""Hydra sweepers: `grid` (Cartesian product with the rules of `grid:` and the trials of `tuning:`) and `dry_run`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from xlora_bench.runs.hydra_internals import basic_sweeper

if TYPE_CHECKING:
    from xlora_bench.sweeps.planning.jobs import PlannedRun
    from xlora_bench.sweeps.planning.phases import Phases


class GridSweeper(basic_sweeper()):  # type: ignore[misc]
    """Runs the Cartesian product of the override lists, changed by the rules of `grid:`; equal runs are run once.

    With `tuning:` the trials run first. Then each reported run is run as configured (fixed) and with the values of the
    best trial of its method (tuned). A failed job does not stop the others; the first error is raised at the end.

    Raises:
        ValueError: if a rule or `tuning` is wrong, before any job starts.
    """

    def sweep(self, arguments: list[str]) -> list[Sequence[JobReturn]]:
        """Run the sweep of the config and the command line `arguments`."""
        assert self.config is not None
        assert self.hydra_context is not None
        from xlora_bench.sweeps.planning.phases import Phases  # noqa: PLC0415 - slow to import (pandas)

        phases = Phases(self.config, self.hydra_context.config_loader, arguments=arguments)
        folder = Path(self.config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, folder / "multirun.yaml")
        returns: list[Sequence[JobReturn]] = []
        started = 0
        for runs in phases.run(folder / "jobs"):
            self._follow(phases)
            returns += self._launch(runs, first=started)
            started += len(runs)
        if any(job.status != JobStatus.COMPLETED for batch in returns for job in batch):
            self.hydra_context.callbacks.on_multirun_end(config=self.config)  # Hydra does not call it after an error
        for batch in returns:
            for job in batch:
                _ = job.return_value  # raises the error of a job that failed
        return returns

    def _launch(self, runs: "Sequence[PlannedRun]", *, first: int) -> list[Sequence[JobReturn]]:
        """Launch the runs in batches; their job numbers start at `first`."""
        assert self.launcher is not None
        returns: list[Sequence[JobReturn]] = []
        for batch in self.split_overrides_to_chunks([list(run.overrides) for run in runs], self.max_batch_size):
            returns.append(self.launcher.launch(batch, initial_job_idx=first))
            first += len(batch)
        return returns

    def _follow(self, phases: "Phases") -> None:
        """Pass the planned runs to the `SweepReport` callback."""
        from xlora_bench.sweeps.reporting.callback import SweepReport  # noqa: PLC0415 - slow to import

        assert self.hydra_context is not None
        for callback in self.hydra_context.callbacks.callbacks:
            if isinstance(callback, SweepReport):
                callback.follow(phases.runs, notes=phases.notes)


class DryRunSweeper(basic_sweeper()):  # type: ignore[misc]
    """Lists the runs of a sweep with their estimated costs; runs none."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Store context and config; no launcher is needed."""
        self.hydra_context = hydra_context
        self.config = config

    def sweep(self, arguments: list[str]) -> None:
        """Print the runs of the sweep of the config and the command line `arguments`."""
        assert self.config is not None
        assert self.hydra_context is not None
        from xlora_bench.sweeps.estimate.dry_run import dry_run  # noqa: PLC0415 - slow to import (pandas, tokenizers)

        dry_run(self.config, self.hydra_context.config_loader, arguments=arguments)
