"""Collect records into one tidy data frame, one row per run."""

import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import pandas as pd

from xlora_bench.runs.config_hash import COSMETIC, relevant
from xlora_bench.runs.read_records import read_records
from xlora_bench.runs.record import RECORD, Record, run_folder

log = logging.getLogger(__name__)

OUTCOME = (
    *("run_id", "status", "reason", "seed", "headline"),
    *("score", "score_best", "score_last", "score_cross_split", "started", "finished"),
)
"""Columns that every frame has. Of the others, those with a `/` are measured, the rest are requested (config)."""


MEMORY = "cost/peak_memory_bytes"
"""None for a run on a CPU: older records have the memory of its process there, with what earlier runs left."""


class Reasons(dict[str, str]):
    """A mapping in `frame.attrs` that is never changed: pandas copies the attributes for each frame derived from it."""

    def __deepcopy__(self, memo: object) -> Self:
        return self


def collect(results_dir: str | Path, run_ids: Sequence[str] | None = None) -> pd.DataFrame:
    """Return one row per recorded run of a results folder: all, sorted by start time, or `run_ids` in their order.

    Columns: those in `OUTCOME` (`score_best`: headline metric at its best epoch; `score_last`: at the last epoch;
    `score_cross_split`: see `selection.with_selections`; `score`: the reported one, initially `score_best`), the group
    choices (`adapter`), the config keys (`adapter.rank`), and measured values (`best/accuracy`, `last/loss`,
    `parameters/adapter`, `cost/train_seconds`, `hashes/data`, `code/commit`, `versions/torch`).
    `frame.attrs["unreadable"]` maps unreadable record files to the reason; `frame.attrs["missing"]` lists run ids
    without a record.
    """
    results_dir = Path(results_dir)
    wanted = list(dict.fromkeys(_run_ids(results_dir) if run_ids is None else run_ids))
    every = read_records(results_dir, wanted)
    missing = [run_id for run_id in wanted if run_id not in every]
    records, unreadable = [], {}
    for run_id, record in every.items():
        if isinstance(record, Record):
            records.append(record)
        else:
            log.warning("%s", record)
            unreadable[str(run_folder(results_dir, run_id) / RECORD)] = str(record)
    if run_ids is None:
        records.sort(key=lambda record: record.started)
    frame = of_records(records)
    frame.attrs.update(unreadable=Reasons(unreadable), missing=missing)
    return frame


def of_records(records: Sequence[Record]) -> pd.DataFrame:
    """Return one row per record, in their order; the columns are those of `collect`."""
    return to_frame([_row(record) for record in records])


def to_frame(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return `rows` as a frame with at least the columns in `OUTCOME`."""
    names = dict.fromkeys([*OUTCOME, *(name for row in rows for name in row)])
    return pd.DataFrame(list(rows), columns=list(names))


def requested_columns(config: Mapping[str, Any], choices: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of a run that are known before it is trained: group choices and flat config."""
    return {**naming_choices(choices), **dict(_flatten(relevant(config)))}


def naming_choices(choices: Mapping[Any, Any]) -> dict[str, Any]:
    """Return the group choices without those of Hydra, of cosmetic groups such as the logger, and groups not chosen."""
    named = {name: choice for name, choice in choices.items() if choice not in (None, "None")}
    return {name: choice for name, choice in named.items() if "/" not in name and name not in COSMETIC}


def _run_ids(results_dir: Path) -> list[str]:
    """Return the run ids of a results folder, then those of schema 1."""
    folders = (results_dir / "runs", results_dir / "cells")
    return [path.name for root in folders if root.is_dir() for path in sorted(root.iterdir()) if path.is_dir()]


def _row(record: Record) -> dict[str, Any]:
    headline = record.metrics.get("headline")
    best, last = record.metrics.get("best") or {}, record.metrics.get("last") or {}
    outcome = {
        "run_id": record.run_id,
        "status": record.status,
        "reason": record.reason,
        "headline": headline,
        "score": _score(best, headline),
        "score_best": _score(best, headline),
        "score_last": _score(last, headline),
        "started": record.started,
        "finished": record.finished,
    }
    parts = {"best": best, "last": last}
    parts |= {name: getattr(record, name) for name in ("parameters", "cost", "hashes", "code", "versions")}
    measured = {f"{part}/{key}": value for part, values in parts.items() for key, value in values.items()}
    if MEMORY in measured and not _on_gpu(record):
        measured[MEMORY] = None
    return {**requested_columns(record.config, record.choices), "seed": record.seed, **outcome, **measured}


def _on_gpu(record: Record) -> bool:
    trainer = record.config.get("trainer")
    accelerator = trainer.get("accelerator") if isinstance(trainer, Mapping) else None
    return bool(record.machine.get("gpus")) and accelerator != "cpu"


def _score(metrics: Mapping[str, Any], headline: str | None) -> float:
    value = metrics.get(headline) if headline is not None else None
    return math.nan if value is None else float(value)


def _flatten(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of `node` with dotted names; lists become JSON text, because table axes must be hashable."""
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", json.dumps(value) if isinstance(value, list | tuple) else value
