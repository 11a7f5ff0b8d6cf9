"""The main job: train the run of a config, unless its record exists."""

import logging
import signal
from pathlib import Path

from filelock import FileLock
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from xlora_bench.runs.record import Record, damages
from xlora_bench.runs.sweep_context import running_sweep
from xlora_bench.system.torch_threads import threads
from xlora_bench.training.caches import PROCESS
from xlora_bench.training.callbacks.checkpoint import threads_of
from xlora_bench.training.fit import fit
from xlora_bench.training.prepare import prepare
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
    """Return the record of a run; train it if there is none or with `rerun`. A file lock excludes other processes."""
    run = request.run
    run.lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(run.lock):
        run.repair()
        record = None if run.config["rerun"] else run.finished()
        if record is None:
            return train_run(request)
        log.info("run %s is recorded as %s; rerun=true trains it again", run.id, record.status)
        return record


def train_run(request: RunRequest) -> Record:
    """Prepare, fit and record a run; on an exception record `failed`, unless a valid record exists, and raise it."""
    run, started = request.run, now()
    run.start(rerun=run.config["rerun"])
    checkpoint = run.resume_from()
    try:
        with threads(threads_of(checkpoint)):  # another number would give other digits
            outcome = fit(prepare(request, init_from=parent_adapter(request), checkpoint=checkpoint))
            record = record_of(request, outcome, started=started)
    except Exception as error:
        failure = {"status": "failed", "reason": f"{type(error).__name__}: {error}"}
        end_failed(request, record_of(request, failure, started=started))
        raise
    except SystemExit as stop:  # how Lightning ends after Ctrl-C, which it also turns off
        signal.signal(signal.SIGINT, signal.default_int_handler)
        raise KeyboardInterrupt from stop
    run.end(record)
    return record


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
    except Exception as error:
        raise ValueError(f"the parent run {parent.id} failed: {type(error).__name__}: {error}") from error
    if record.status != "completed":
        raise ValueError(f"the parent run {parent.id} {record.status} ({record.reason}): nothing to start from")
    path = parent.folder / "adapter_best.safetensors"
    if wrong := [line for line in damages(record, parent.folder) if line.startswith(f"{path} ")]:
        raise ValueError(f"the parent run {parent.id} is damaged: {wrong[0]}; train it again with rerun=true")
    return path
