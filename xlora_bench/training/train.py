"""The main job: train the run of a config, unless its record exists."""

import logging
import signal
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from xlora_bench.runs.claim import AtHomeError, Claim, ClaimLostError, HeldError
from xlora_bench.runs.record import Record, damages
from xlora_bench.runs.run import Run, newest_number
from xlora_bench.runs.sweep_context import (
    attempt_at_home,
    end_at_home,
    held_runs_are_deferred,
    running_sweep,
    sweep_started,
)
from xlora_bench.system.torch_threads import threads
from xlora_bench.training.caches import PROCESS
from xlora_bench.training.callbacks.checkpoint import devices_of, threads_of
from xlora_bench.training.callbacks.claim_watch import ClaimWatch
from xlora_bench.training.fit import fit
from xlora_bench.training.prepare import prepare
from xlora_bench.training.rank_processes import fit_in_processes
from xlora_bench.training.recording import now, record_of
from xlora_bench.training.resolve import RunRequest, resolve

log = logging.getLogger(__name__)


def train(config: DictConfig) -> Record:
    """Train the run of `config`, unless its record exists; return the record.

    Raises:
        ValueError: if an option is wrong, before training starts.
    """
    job = HydraConfig.get()
    choices = {group: str(choice) for group, choice in job.runtime.choices.items() if not group.startswith("hydra/")}
    request = resolve(config, choices=choices, overrides=list(job.overrides.task), hydra=job, caches=PROCESS)
    request.run.announce(Path(job.runtime.output_dir), hydra=job)
    record = get_or_train(request)
    if running_sweep() is None:  # a sweep has its own progress lines
        log.info("%s -> %s", record.summary(), request.run.folder)
    return record


def get_or_train(request: RunRequest) -> Record:
    """Return the record of a run; train it if there is none or with `rerun`, while holding its claim.

    If another process holds the claim, wait for its record or its end. A job of a sweep that has other runs to train
    does not wait.

    Raises:
        HeldError: instead of waiting.
        AtHomeError: on a machine that does not see the results folder of the sweep, if the record, or an attempt to go
            on from, is there.
    """
    run, since = request.run, sweep_started() or time.time()
    claim, holder = Claim(run.claim), ""
    check_home(run, since=since)
    while (record := usable(run, since=since)) is None:
        if not claim.take():
            if held_runs_are_deferred():
                raise HeldError(run.folder, claim.holder)
            if holder != claim.holder:
                holder = claim.holder
                log.info("waiting for run %s, which %s trains", run.id, holder)
            time.sleep(1)
            continue
        with claim:
            run.repair()
            if (record := usable(run, since=since)) is None:
                try:
                    return train_run(request, claim)
                except ClaimLostError as lost:
                    log.warning("%s: this attempt at it is thrown away", lost)
    log.info("run %s is recorded as %s; rerun=true trains it again", run.id, record.status)
    return record


def check_home(run: Run, *, since: float) -> None:
    """Raise an AtHomeError if only the results folder of the sweep has the record, or the attempt, that is to be used.

    With `rerun` no attempt is.
    """
    ended, here = end_at_home(run.id), run.finished()
    if ended is not None and is_current(ended, run, since=since):
        if here is None or here.finished != ended:
            raise AtHomeError(run.id)
    elif here is None and not run.config["rerun"] and attempt_at_home(run.id) > newest_number(run.folder):
        raise AtHomeError(run.id)


def usable(run: Run, *, since: float) -> Record | None:
    """Return the record of a run that has ended; with `rerun` only if it ended after the time `since`."""
    record = run.finished()
    return record if record is not None and is_current(record.finished, run, since=since) else None


def is_current(ended: str, run: Run, *, since: float) -> bool:
    """Return whether a record that ended then is used; with `rerun` only if that was after the time `since`."""
    return not run.config["rerun"] or datetime.fromisoformat(ended).timestamp() >= since


def train_run(request: RunRequest, claim: Claim) -> Record:
    """Prepare, fit and record a run; on an exception record `failed`, unless a valid record exists, and raise it.

    Raises:
        ClaimLostError: if another process took over the run; this attempt at it is deleted.
    """
    run, started = request.run.start(rerun=request.run.config["rerun"]), now()
    request = replace(request, run=run)
    devices = run.config["trainer"].get("devices", 1)
    checkpoint = usable_checkpoint(run, devices=devices)
    try:
        with threads(threads_of(checkpoint)):  # another number would give other digits
            init_from = parent_adapter(request)
            if devices == 1:
                watch = ClaimWatch(claim, run.progress)
                outcome = fit(prepare(request, init_from=init_from, checkpoint=checkpoint, callbacks=[watch]))
            else:
                outcome = fit_in_processes(
                    run, devices=devices, init_from=init_from, checkpoint=checkpoint, check=claim.check
                )
            record = record_of(request, outcome, started=started)
        claim.check()
        run.end(record)
    except SystemExit as stop:  # how Lightning ends after Ctrl-C, which it also turns off
        signal.signal(signal.SIGINT, signal.default_int_handler)
        raise KeyboardInterrupt from stop
    except (HeldError, AtHomeError):
        raise
    except Exception as error:
        try:
            claim.check()  # the successor deletes the files of this attempt, so any error may come from that
        except ClaimLostError:
            run.give_up()
            raise
        failure = {"status": "failed", "reason": f"{type(error).__name__}: {error}"}
        end_failed(request, record_of(request, failure, started=started))
        raise
    return record


def usable_checkpoint(run: Run, *, devices: int) -> Path | None:
    """Return the checkpoint of an interrupted run; None with a warning if it was trained on another number of devices.

    With dropout its masks would be those of neither number.
    """
    checkpoint = run.resume_from()
    if checkpoint is None or (before := devices_of(checkpoint)) == devices:
        return checkpoint
    log.warning("run %s starts over: it began with trainer.devices=%d, and now has %d", run.id, before, devices)
    return None


def end_failed(request: RunRequest, record: Record) -> None:
    """Record a failed run, unless it has a finished record (`rerun`). A full disk is no reason to lose the error."""
    run = request.run
    try:
        if run.finished() is None:
            run.end(record)
        else:
            run.give_up()
    except OSError as error:
        log.error("the failure of run %s cannot be recorded: %s", run.id, error)


def parent_adapter(request: RunRequest) -> Path | None:
    """Return the file of the parent's adapter, best epoch (None: no parent); train the parent if it has no record.

    Raises:
        ValueError: if the parent failed or collapsed.
    """
    if request.parent is None:
        return None
    run, parent = request.run, request.parent.run
    log.info("run %s starts from run %s (%s)", run.id, parent.id, " ".join(run.config["start_from"]))
    try:
        record = get_or_train(request.parent)
    except (HeldError, AtHomeError):
        raise
    except Exception as error:
        raise ValueError(f"the parent run {parent.id} failed: {type(error).__name__}: {error}") from error
    if record.status != "completed":
        raise ValueError(f"the parent run {parent.id} {record.status} ({record.reason}): nothing to start from")
    path = parent.folder / "adapter_best.safetensors"
    if wrong := [line for line in damages(record, parent.folder) if line.startswith(f"{path} ")]:
        raise ValueError(f"the parent run {parent.id} is damaged: {wrong[0]}; train it again with rerun=true")
    return path
