"""The main job: train the cell that a config names, unless its record is there already."""

import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from xlora_bench.cell import Cell, writable
from xlora_bench.results import provenance
from xlora_bench.results.record import Record
from xlora_bench.results.sweep import running_sweep
from xlora_bench.run import run
from xlora_bench.tasks.data import TextData

log = logging.getLogger(__name__)

PARTS = ("model", "adapter", "init_scheme", "targets", "task", "optimizer", "scheduler")
"""The config groups that make a cell; each names a class of plain options."""

KEYS = {*PARTS, "trainer", "logger", "seed", "rerun", "monitor", "paths", "paper"}
"""Every top-level key of a config."""


def train(config: DictConfig) -> float | None:
    """Train the cell that `config` names, unless its record exists; return the headline metric of its best epoch.

    Raises:
        ValueError: if an option is wrong, before anything heavy starts.
    """
    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    check_keys(plain)
    parts = {name: instantiate(plain[name]) for name in PARTS}
    results_dir = writable(Path(plain["paths"]["results_dir"]).expanduser())
    data = TextData(
        parts["task"],
        tokenizer=parts["model"].tokenizer(),
        seed=plain["seed"],
        data_dir=Path(plain["paths"]["data_dir"]).expanduser() if plain["paths"]["data_dir"] else None,
        cache_dir=Path(plain["paths"]["cache_dir"]).expanduser(),
    )
    job = HydraConfig.get()
    choices = {group: str(choice) for group, choice in job.runtime.choices.items() if not group.startswith("hydra/")}
    cell = Cell.of(plain, choices=choices, data=data.fingerprint, results_dir=results_dir)
    cell.announce(Path(job.runtime.output_dir))
    with FileLock(cell.folder / "lock"):
        record = None if plain["rerun"] else cell.finished()
        if record is not None:
            log.info("cell %s is recorded as %s; rerun=true trains it again", cell.id, record.status)
        else:
            record = train_cell(cell, parts, data)
    if running_sweep() is None:  # a sweep has its own progress lines
        log.info("%s -> %s", summary(record), cell.folder)
    return record.score


def summary(record: Record) -> str:
    """Return one line on how the cell ended."""
    headline, best = record.metrics.get("headline"), record.metrics.get("best")
    score = f"{headline} {best[headline]:.4f} at epoch {best['epoch']}" if best else "no evaluation"
    return f"{record.status}{f' ({record.reason})' if record.reason else ''}, {score}"


def check_keys(plain: dict[str, Any]) -> None:
    """Raise a ValueError for a top-level key that nothing reads, such as one added by a mistyped `+key=value`."""
    if unknown := sorted(plain.keys() - KEYS):
        raise ValueError(f"`{unknown[0]}` is not a key of the config; it has: {', '.join(sorted(KEYS))}")
    if not isinstance(plain["seed"], int):
        raise ValueError(f"`seed` (={plain['seed']!r}) must be a whole number; several seeds need -m")


def train_cell(cell: Cell, parts: dict[str, Any], data: TextData) -> Record:
    """Train `cell` and write its record; an exception is recorded as `failed`, unless in a rerun, and raised."""
    started = now()
    cell.start(rerun=cell.config["rerun"])
    try:
        outcome = run(cell, parts, data)
    except Exception as error:
        failure = {"status": "failed", "reason": f"{type(error).__name__}: {error}"}
        if cell.finished() is None:  # a failed rerun leaves what was recorded
            cell.end(record_of(cell, failure, started=started))
        raise
    record = record_of(cell, outcome, started=started)
    cell.end(record)
    return record


def record_of(cell: Cell, outcome: dict[str, Any], *, started: str) -> Record:
    """Return the record of `cell` with what came out and with what made it."""
    return Record(
        cell=cell.id,
        config=cell.config,
        choices=cell.choices,
        seed=cell.config["seed"],
        code=provenance.code(),
        versions=provenance.versions(),
        machine=provenance.machine(),
        started=started,
        finished=now(),
        **outcome,
    )


def now() -> str:
    """Return the present time, ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")
