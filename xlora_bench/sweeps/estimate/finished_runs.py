"""Recorded runs of a results folder: which runs need no training, and the measured training speed of models."""

import logging
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xlora_bench.runs.config_hash import config_hash
from xlora_bench.runs.record import Record
from xlora_bench.sweeps.estimate.costs import passes_of
from xlora_bench.training.devices import device_here

log = logging.getLogger(__name__)


class FinishedRuns:
    """Records of a results folder, indexed by config hash without the data, which may not be on this machine."""

    def __init__(self, results_dir: Path) -> None:
        self._data: dict[str, set[str | None]] = {}
        self._speeds: dict[tuple[Any, ...], list[float]] = {}
        for path in sorted((results_dir / "runs").glob("*/record.json")):
            try:
                self._add(Record.read(path))
            except ValueError as error:
                log.warning("%s", error)

    def has(self, config: Mapping[str, Any], *, data: str | None) -> bool:
        """Whether the run of `config` has a record; `data` is its data fingerprint (None: any data matches)."""
        fingerprints = self._data.get(config_hash(config, data=""), set())
        return bool(fingerprints) if data is None else data in fingerprints

    def speed(self, config: Mapping[str, Any]) -> float | None:
        """Return the median training tokens per second of runs like that of `config` on its device, if any.

        They have the same model, precision and `passes_of`.
        """
        trainer = config["trainer"]
        speeds = self._speeds.get(_kind(config, device_here(trainer.get("accelerator", "auto"))))
        return statistics.median(speeds) if speeds else None

    def _add(self, record: Record) -> None:
        if record.status == "failed":
            return
        self._data.setdefault(config_hash(record.config, data=""), set()).add(record.hashes.get("data"))
        if record.cost.get("tokens_per_second"):
            self._speeds.setdefault(_kind(record.config, _device(record)), []).append(record.cost["tokens_per_second"])


def _kind(config: Mapping[str, Any], device: str | None) -> tuple[Any, ...]:
    precision = config["trainer"].get("precision", "32-true")
    return str(config["model"]["name"]), passes_of(config), device, precision


def _device(record: Record) -> str:
    """Return the type of the device on which a run was trained."""
    accelerator = record.config["trainer"].get("accelerator", "auto")
    if accelerator in ("cpu", "mps"):
        return str(accelerator)
    return "cuda" if record.machine.get("gpus") else "mps" if accelerator == "gpu" else "cpu"
