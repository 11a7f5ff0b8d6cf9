"""Hydra callback of a sweep: a progress line per run, and the table at the end."""

import atexit
import dataclasses
import json
import logging
import os
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from xlora_bench.results.frame.collect import naming_choices
from xlora_bench.results.frame.trials import BY
from xlora_bench.runs.claim import Claim, HeldError
from xlora_bench.runs.console import console
from xlora_bench.runs.record import Record, older_records
from xlora_bench.runs.sweep_context import enter_sweep, leave_sweep
from xlora_bench.sweeps.planning.jobs import EndedJobs, Job, PlannedRun, clear_jobs, read_jobs
from xlora_bench.sweeps.reporting.collapse import collapse_lines
from xlora_bench.sweeps.reporting.heartbeat import Heartbeat, RunsUnderWay, erase_line
from xlora_bench.sweeps.reporting.plan import Plan, make_plan, sweep_frame
from xlora_bench.sweeps.reporting.progress import progress_line
from xlora_bench.training.budget.options import with_budget

log = logging.getLogger(__name__)


class SweepReport(Callback):
    """Prints the progress of a sweep, and a heartbeat while its runs are under way; writes its table at the end.

    The table is in `<results_dir>/reports/<sweep name>/`.
    Jobs may run in other processes, each with a copy of this object; the copies share state through one file per job
    (see `EndedJobs`).
    A job writes the id of its run to `run.json` (`{"run_id": id}`) in its output folder.
    """

    def __init__(self) -> None:
        self._plan: Plan | None = None
        self._ended: EndedJobs | None = None
        self._job_started = 0.0
        self._silent = False
        self._heartbeat: Heartbeat | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the heartbeat: only the process that started the sweep has one."""
        return {**vars(self), "_heartbeat": None}

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Plan the sweep, and register its table for the exit of the process; do nothing for a dry run."""
        if str(config.hydra.sweeper.get("_target_")).endswith(".DryRunSweeper"):
            return
        with _only_warning("this sweep goes without progress and table"):
            self._plan = make_plan(config)
            if self._plan.is_part:
                return
            clear_jobs(self._plan.jobs)
            if older := older_records(self._plan.results_dir):
                _say(f"{len(older)} older records (schema 1) are not reused; `xlora-bench table` and `diff` read them")
            self._heartbeat = Heartbeat(partial(self._line, RunsUnderWay()))
            # After a failed job, Hydra ends the sweep without calling on_multirun_end.
            atexit.register(self._report)

    def follow(self, runs: Sequence[PlannedRun], *, notes: Sequence[str] = ()) -> None:
        """Set the planned runs (all that the sweeper knows so far) and the notes for the table."""
        if self._plan is not None:
            self._plan = dataclasses.replace(self._plan, runs=list(runs), notes=list(notes))

    def drop(self) -> None:
        """Report nothing: the sweep was refused before its first job."""
        self._stop_heartbeat()
        self._plan = None
        atexit.unregister(self._report)

    def be_silent(self) -> None:
        """Write the report at the end, but print nothing: the sweep was interrupted."""
        self._stop_heartbeat()
        self._silent = True

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Store the start time, by which records of earlier attempts are recognised, and name the sweep."""
        self._job_started = time.time()
        if self._plan is not None:
            if self._plan.is_part:
                self._job_started = self._plan.launched
            folder = Path(config.hydra.sweep.dir).absolute()
            enter_sweep(self._plan.name, started=self._plan.started, folder=folder)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Print the progress line of this run; after the last run, print the table, before Hydra raises a job's error.

        The configs in `job_return` (200 KB per run) are dropped: Hydra keeps it until the sweep ends, and nothing reads
        them. A launcher may pass the time at which the job `started` elsewhere, or the job as it `ended` there.
        """
        leave_sweep()
        if self._plan is None or isinstance(job_return._return_value, HeldError):  # it is asked for again
            return
        job_return.cfg = job_return.hydra_cfg = None
        plan, ended = self._plan, 0
        with _only_warning("no progress line for this run"):
            started = kwargs.get("started", self._job_started)
            job = kwargs.get("ended") or _ended(config, job_return, plan.results_dir, started=started)
            if self._ended is None or self._ended.folder != plan.jobs:
                self._ended = EndedJobs(plan.jobs)
            plan.jobs.mkdir(parents=True, exist_ok=True)
            with nullcontext() if plan.is_part else Claim(plan.jobs / "lock").wait():
                self._ended.end(job, alone=plan.is_part)
                ended, elapsed = len(self._ended.by_number), time.time() - plan.started
                _say(progress_line(job, ended=self._ended, runs=len(plan.runs), shown=plan.shown, elapsed=elapsed))
        if ended and ended == len(plan.runs) and not plan.is_part:
            self._report()

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Print the table, unless it was printed already."""
        self._report()

    def _report(self) -> None:
        """Print and write the table once, only in the process that started the sweep."""
        if self._plan is None or self._plan.process != os.getpid() or self._plan.is_part:
            return
        self._stop_heartbeat()
        plan, self._plan = self._plan, None
        atexit.unregister(self._report)
        if not plan.runs and not read_jobs(plan.jobs):  # an error ended the sweep before its first run
            return
        with _silent() if self._silent else _only_warning("no table for this sweep"):
            _report(plan, silent=self._silent)

    def _line(self, under_way: RunsUnderWay) -> tuple[int, str]:
        assert self._plan is not None
        return under_way.line(self._plan)

    def _stop_heartbeat(self) -> None:
        if self._heartbeat is not None:
            self._heartbeat.stop()
            self._heartbeat = None


@contextmanager
def _only_warning(consequence: str) -> Iterator[None]:
    """Turn an error into a warning: an error of the report must not stop the sweep or hide errors of its jobs."""
    try:
        yield
    except Exception as error:
        log.warning("%s: %s: %s", consequence, type(error).__name__, error)


@contextmanager
def _silent() -> Iterator[None]:
    """Hide warnings and errors; a second Ctrl-C ends at once, without a traceback."""
    with warnings.catch_warnings(), suppress(Exception, KeyboardInterrupt):
        warnings.simplefilter("ignore")
        yield


def _say(line: str) -> None:
    erase_line()
    console().print(line, soft_wrap=True, markup=False, highlight=False)


def _report(plan: Plan, *, silent: bool) -> None:
    # scipy, statsmodels and matplotlib take 2 s to import; workers import this module but do not need them
    from xlora_bench.results.page.write import NAME as PAGE  # noqa: PLC0415 - slow to import
    from xlora_bench.results.protocols.selection import with_selections  # noqa: PLC0415 - slow to import
    from xlora_bench.results.reports.report import write_report  # noqa: PLC0415 - slow to import
    from xlora_bench.results.reports.trials import write_trials  # noqa: PLC0415 - slow to import
    from xlora_bench.results.reports.wandb_table import log_report  # noqa: PLC0415 - slow to import
    from xlora_bench.training.loggers.wandb_logs import sync_command  # noqa: PLC0415 - slow to import

    frame = sweep_frame(plan)
    if "tuning" in frame:
        by = OmegaConf.select(plan.config, "tuning.by") or BY
        labels = plan.paper.row_labels if plan.paper else {}
        write_trials(frame[frame["tuning"] == "trial"], plan.report, by=list(by), labels=labels)
    frame = with_selections(frame, plan.results_dir)
    table = write_report(frame, plan.report, title=plan.title, paper=plan.paper, results_dir=plan.results_dir)
    if not silent:
        console().print(table.to_rich())
        for line in collapse_lines(frame):
            _say(line)
        _say(f"Files: {plan.report}")
        if (plan.report / PAGE).is_file():
            _say(f"Page: {plan.report / PAGE}")
    if plan.logs_to_wandb:
        log_report(table, name=plan.name, figures=plan.report.glob("*.png"), settings=plan.wandb_settings)
        if not silent and plan.wandb_settings["mode"] == "offline":
            _say(f"W&B: {sync_command(plan.results_dir)}")


def _ended(config: DictConfig, job_return: JobReturn, results_dir: Path, *, started: float) -> Job:
    """Return how a job ended, from the error it raised or from the record of its run."""
    error = None
    if job_return.status != JobStatus.COMPLETED:
        raised = job_return._return_value  # the public property would raise it
        error = f"{type(raised).__name__}: {raised}".splitlines()[0]
    run = _run(Path(config.hydra.runtime.output_dir))
    record, reused = None, False
    if run is not None and error is None:
        path = results_dir / "runs" / run / "record.json"
        try:
            record = Record.read(path)
            began = record.attempt or path.stat().st_mtime * 1000  # older records have no number of an attempt
            reused = began < int(started * 1000)
        except ValueError as unreadable:
            error = str(unreadable)
    return Job(
        number=int(config.hydra.job.num),
        overrides=list(job_return.overrides or []),
        choices=with_budget(config.get("budget"), choices=naming_choices(config.hydra.runtime.choices)),
        run_id=run,
        status=record.status if record else "failed",
        score=record.score if record else None,
        error=error or (record.reason if record else "the job left no run"),
        reused=reused,
    )


def _run(output_dir: Path) -> str | None:
    path = output_dir / "run.json"
    return str(json.loads(path.read_text(encoding="utf-8"))["run_id"]) if path.exists() else None
