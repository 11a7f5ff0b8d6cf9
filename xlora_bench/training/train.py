"""The main job: train the cell that a config names, unless its record is there already."""

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from xlora_bench.data.datamodule import TextData
from xlora_bench.models import weight_cache
from xlora_bench.nn.ops.numerics import arithmetic, check_revision
from xlora_bench.runs import provenance
from xlora_bench.runs.hydra_internals import compose_like
from xlora_bench.runs.overrides import parent_overrides
from xlora_bench.runs.record import Record
from xlora_bench.runs.run import Cell, writable
from xlora_bench.runs.sweep_context import running_sweep
from xlora_bench.training.budget.solve import solve_budget
from xlora_bench.training.run import run
from xlora_bench.training.start_from import check_parent

log = logging.getLogger(__name__)

PARTS = ("model", "adapter", "init_scheme", "targets", "task", "optimizer", "scheduler")
"""The config groups that make a cell; each names a class of plain options."""

RUN = {"trainer", "logger", "seed", "arithmetic", "start_from", "rerun", "budget", "monitor", "paths"}
SWEEP = {"grid", "tuning", "paper"}
KEYS = {*PARTS, *RUN, *SWEEP}
"""Every top-level key of a config."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A cell that is asked for, with what it is made of, and the one that it starts from, if any."""

    cell: Cell
    parts: dict[str, Any]
    data: TextData
    parent: "Asked | None"


def train(config: DictConfig) -> float | None:
    """Train the cell that `config` names, unless its record exists; return the headline metric of its best epoch.

    Raises:
        ValueError: if an option is wrong, before anything heavy starts.
    """
    job = HydraConfig.get()
    choices = {group: str(choice) for group, choice in job.runtime.choices.items() if not group.startswith("hydra/")}
    asked = ask(config, choices=choices, overrides=list(job.overrides.task))
    asked.cell.announce(Path(job.runtime.output_dir))
    record = ensure(asked)
    if running_sweep() is None:  # a sweep has its own progress lines
        log.info("%s -> %s", summary(record), asked.cell.folder)
    return record.score


def ask(config: DictConfig, *, choices: dict[str, str], overrides: list[str]) -> Asked:
    """Return the cell that `config` names, composed from `overrides`, and those that come before it.

    Raises:
        ValueError: if an option is wrong.
    """
    choices = solve_budget(config, choices=choices, overrides=overrides)
    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    check_keys(plain)
    parts = {name: instantiate(plain[name]) for name in PARTS}
    results_dir = writable(Path(plain["paths"]["results_dir"]).expanduser())
    parent = None
    if plain.get("start_from"):
        lines = parent_overrides(overrides, start_from=plain["start_from"])
        parents_config, parents_choices = compose_like(HydraConfig.get(), lines)
        parent = ask(parents_config, choices=parents_choices, overrides=lines)
        check_parent(plain, parent.cell.config)
    data = TextData(
        parts["task"],
        tokenizer=weight_cache.tokenizer(parts["model"]),
        seed=plain["seed"],
        data_dir=Path(plain["paths"]["data_dir"]).expanduser() if plain["paths"]["data_dir"] else None,
        cache_dir=Path(plain["paths"]["cache_dir"]).expanduser(),
    )
    cell = Cell.of(
        plain,
        choices=choices,
        data=data.fingerprint,
        results_dir=results_dir,
        parent=parent.cell.id if parent else None,
    )
    return Asked(cell=cell, parts=parts, data=data, parent=parent)


def ensure(asked: Asked) -> Record:
    """Return the record of a cell, trained now if there is none."""
    cell = asked.cell
    with FileLock(cell.folder / "lock"):
        record = None if cell.config["rerun"] else cell.finished()
        if record is None:
            return train_cell(asked)
        log.info("cell %s is recorded as %s; rerun=true trains it again", cell.id, record.status)
        return record


def start_of(asked: Asked) -> Path | None:
    """Return the adapter that a cell starts from, of its parent's best epoch; train the parent if need be.

    Raises:
        ValueError: if the parent failed or collapsed.
    """
    if asked.parent is None:
        return None
    parent = asked.parent.cell
    log.info("cell %s starts from cell %s (%s)", asked.cell.id, parent.id, " ".join(asked.cell.config["start_from"]))
    try:
        record = ensure(asked.parent)
    except Exception as error:
        raise ValueError(f"the parent cell {parent.id} failed: {type(error).__name__}: {error}") from error
    if record.status != "done":
        raise ValueError(f"the parent cell {parent.id} {record.status} ({record.reason}): nothing to start from")
    return parent.folder / "adapter_best.safetensors"


def summary(record: Record) -> str:
    """Return one line on how the cell ended."""
    headline, best = record.metrics.get("headline"), record.metrics.get("best")
    score = f"{headline} {best[headline]:.4f} at epoch {best['epoch']}" if best else "no evaluation"
    return f"{record.status}{f' ({record.reason})' if record.reason else ''}, {score}"


def check_keys(plain: dict[str, Any]) -> None:
    """Raise a ValueError for a top-level key that nothing reads, such as a mistyped `+key=value`, or a wrong value."""
    if unknown := sorted(plain.keys() - KEYS):
        raise ValueError(f"`{unknown[0]}` is not a key of the config; it has: {', '.join(sorted(KEYS))}")
    check_revision(plain.get("arithmetic"))
    if not isinstance(plain["seed"], int):
        raise ValueError(f"`seed` (={plain['seed']!r}) must be a whole number; several seeds need -m")


def train_cell(asked: Asked) -> Record:
    """Train a cell and write its record; an exception is recorded as `failed`, unless in a rerun, and raised."""
    cell, started = asked.cell, now()
    cell.start(rerun=cell.config["rerun"])
    try:
        start = start_of(asked)
        with arithmetic(cell.config.get("arithmetic")):
            outcome = run(cell, asked.parts, asked.data, start=start)
    except Exception as error:
        failure = {"status": "failed", "reason": f"{type(error).__name__}: {error}"}
        if cell.finished() is None:  # a failed rerun leaves what was recorded
            cell.end(record_of(cell, failure, started=started))
        raise
    if asked.parent is not None:
        outcome["hashes"]["parent"] = asked.parent.cell.id
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
