"""The sweepers: `grid`, Hydra's own with the rules of `grid:` and the rounds of `tuning:`, and `dry_run`."""

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
    """Runs the Cartesian product of the lists after the rules of `grid:`, each run once.

    With `tuning:` the trials run first; then every reported run runs as configured and with the values of the best
    trial of its method. A job that fails leaves the others alone; the first error is raised after the last job.

    Raises:
        ValueError: if a rule or `tuning` is wrong, before any job starts.
    """

    def sweep(self, arguments: list[str]) -> list[Sequence[JobReturn]]:
        """Run the sweep that the config and the `arguments` of the command line describe."""
        assert self.config is not None
        assert self.hydra_context is not None
        from xlora_bench.sweeps.planning.phases import Phases  # noqa: PLC0415 - pandas: only where there is a sweep

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
            self.hydra_context.callbacks.on_multirun_end(config=self.config)  # Hydra skips it when an error is raised
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
        """Tell the report of this sweep what is going to run."""
        from xlora_bench.sweeps.reporting.callback import SweepReport  # noqa: PLC0415 - slow to import

        assert self.hydra_context is not None
        for callback in self.hydra_context.callbacks.callbacks:
            if isinstance(callback, SweepReport):
                callback.follow(phases.runs, notes=phases.notes)


class DryRunSweeper(basic_sweeper()):  # type: ignore[misc]
    """Lists the runs of a sweep with what they cost, and runs none."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra gives; no launcher is needed."""
        self.hydra_context = hydra_context
        self.config = config

    def sweep(self, arguments: list[str]) -> None:
        """Print the runs of the sweep that the config and the `arguments` of the command line describe."""
        assert self.config is not None
        assert self.hydra_context is not None
        from xlora_bench.sweeps.estimate.dry_run import dry_run  # noqa: PLC0415 - pandas, tokenizers

        dry_run(self.config, self.hydra_context.config_loader, arguments=arguments)
