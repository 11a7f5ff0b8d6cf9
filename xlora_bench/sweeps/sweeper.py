"""Hydra sweepers: `grid` (Cartesian product with the rules of `grid:` and the trials of `tuning:`) and `dry_run`."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from xlora_bench.runs.hydra_internals import SweepLoader, basic_sweeper
from xlora_bench.sweeps.outcome import check_collapsed, failure, interruption
from xlora_bench.sweeps.planning.jobs import read_jobs
from xlora_bench.sweeps.planning.plan_file import SweepPlan
from xlora_bench.sweeps.planning.run_list import RunList

if TYPE_CHECKING:
    from xlora_bench.sweeps.planning.jobs import PlannedRun
    from xlora_bench.sweeps.planning.phases import Phases
    from xlora_bench.sweeps.preflight import CheckedSweep
    from xlora_bench.sweeps.reporting.callback import SweepReport


log = logging.getLogger(__name__)


class GridSweeper(basic_sweeper()):  # type: ignore[misc]
    """Runs the Cartesian product of the override lists, changed by the rules of `grid:`; equal runs are run once.

    With `tuning:` the trials run first. Then each reported run is run as configured (fixed) and with the values of the
    best trial of its method (tuned). With a file `runs` (see `RunList`) its runs are run instead. A failed job does
    not stop the others.

    Raises:
        ValueError: if a rule or `tuning` is wrong, before any job starts.
        RunsFailedError, AllCollapsedError: at the end.
        KeyboardInterrupt: with the number of completed runs as its text.
    """

    def __init__(
        self, max_batch_size: int | None, params: dict[str, str] | None = None, runs: str | None = None
    ) -> None:
        super().__init__(max_batch_size=max_batch_size, params=params)
        self._runs = Path(runs) if runs else None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Store context and config, and make the launcher, with a loader that composes nothing twice."""
        loader = SweepLoader.of(hydra_context.config_loader)
        context = HydraContext(callbacks=hydra_context.callbacks, config_loader=loader)
        try:
            super().setup(hydra_context=context, task_function=task_function, config=config)
        except BaseException:  # the launcher refuses its options
            self._drop_reports()
            raise

    def sweep(self, arguments: list[str]) -> list[Sequence[JobReturn]]:
        """Run the sweep of the config and the command line `arguments`."""
        assert self.config is not None
        assert self.hydra_context is not None
        try:
            phases = self._phases(arguments)
        except BaseException:
            self._drop_reports()
            raise
        folder = Path(self.config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, folder / "multirun.yaml")
        returns: list[Sequence[JobReturn]] = []
        started = 0
        try:
            for runs in phases.run(folder / "jobs"):
                self._follow(phases, folder)
                returns += self._launch(runs, first=started)
                started += len(runs)
        except KeyboardInterrupt:
            self._be_silent()
            ended = list(read_jobs(folder / "jobs").values())
            raise KeyboardInterrupt(interruption(ended, planned=len(phases.runs))) from None
        except ValueError:
            if not read_jobs(folder / "jobs"):  # the launcher refuses the sweep
                self._drop_reports()
            raise
        self._check(returns, phases, folder)
        return returns

    def _phases(self, arguments: list[str]) -> "Phases | RunList":
        """Return the launches of the sweep: those of the file `runs`, else of the grid."""
        assert self.config is not None
        assert self.hydra_context is not None
        from xlora_bench.sweeps.planning.phases import Phases  # noqa: PLC0415 - slow to import (pandas)

        if self._runs is not None:
            return RunList(self._runs, arguments=arguments)
        phases = Phases(self.config, self.hydra_context.config_loader, arguments=arguments)
        for line in _checked(phases, self.config, starts_here=True).warnings:
            log.warning("warning: %s", line)
        return phases

    def _check(self, returns: list[Sequence[JobReturn]], phases: "Phases | RunList", folder: Path) -> None:
        """Raise the error of a sweep with failed runs, or with collapsed runs alone, after its table."""
        assert self.config is not None
        assert self.hydra_context is not None
        ended = [job for batch in returns for job in batch]
        # the public property `return_value` would print a line before raising
        errors = {number: job._return_value for number, job in enumerate(ended) if job.status != JobStatus.COMPLETED}
        jobs = list(read_jobs(folder / "jobs").values())
        if not errors and any(job.status != "collapsed" for job in jobs):
            return
        self.hydra_context.callbacks.on_multirun_end(config=self.config)  # Hydra does not call it after an error
        if errors:
            results_dir = str(self.config.paths.results_dir)
            raise failure(phases.runs, errors, results_dir=results_dir) from min(errors.items())[1]
        check_collapsed(jobs)

    def _launch(self, runs: "Sequence[PlannedRun]", *, first: int) -> list[Sequence[JobReturn]]:
        """Launch the runs in batches; their job numbers start at `first`."""
        assert self.launcher is not None
        returns: list[Sequence[JobReturn]] = []
        for batch in self.split_overrides_to_chunks([list(run.overrides) for run in runs], self.max_batch_size):
            returns.append(self.launcher.launch(batch, initial_job_idx=first))
            first += len(batch)
        return returns

    def _follow(self, phases: "Phases | RunList", folder: Path) -> None:
        """Write the planned runs to the folder of the sweep, and pass them to the `SweepReport` callback."""
        assert self.config is not None
        SweepPlan.of(self.config.hydra, phases.runs).write(folder)
        for report in self._reports():
            report.follow(phases.runs, notes=phases.notes)

    def _drop_reports(self) -> None:
        """Leave out the report of a sweep that was refused."""
        for report in self._reports():
            report.drop()

    def _be_silent(self) -> None:
        """Let the report of an interrupted sweep be written without being printed."""
        for report in self._reports():
            report.be_silent()

    def _reports(self) -> "list[SweepReport]":
        from xlora_bench.sweeps.reporting.callback import SweepReport  # noqa: PLC0415 - slow to import

        assert self.hydra_context is not None
        return [callback for callback in self.hydra_context.callbacks.callbacks if isinstance(callback, SweepReport)]


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
        from xlora_bench.sweeps.estimate.dry_run import dry_run  # noqa: PLC0415 - pandas, tokenizers
        from xlora_bench.sweeps.planning.phases import Phases  # noqa: PLC0415 - as above

        phases = Phases(self.config, self.hydra_context.config_loader, arguments=arguments)
        checked = _checked(phases, self.config, starts_here=False)
        folder = Path(str(self.config.paths.results_dir)).expanduser()
        dry_run(phases, results_dir=folder, checked=checked.runs, warnings=checked.warnings)


def _checked(phases: "Phases", config: DictConfig, *, starts_here: bool) -> "CheckedSweep":
    """Check the runs of a sweep of this program; refuse it if one is wrong."""
    from xlora_bench.system.log_levels import set_log_levels  # noqa: PLC0415 - transformers: slow to import

    set_log_levels()
    from xlora_bench.sweeps.preflight import CheckedSweep, check_sweep, is_checked  # noqa: PLC0415 - as above

    return check_sweep(phases, config, starts_here=starts_here) if is_checked(config) else CheckedSweep()
