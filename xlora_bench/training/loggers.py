"""Where a run's curves go: CSV files by default, W&B by choice. Tables are never made from them."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.loggers import CSVLogger, Logger

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RunLabels:
    """How a run is found again among others: its run, its sweep, its place in a table (seeds share it), its labels."""

    run_id: str
    group: str
    config_label: str
    name: str
    tags: tuple[str, ...]
    config: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class CSVLogs:
    """Curves in `logs/version_<k>/metrics.csv` of the run's folder, a new version for every start."""

    def open(self, folder: Path, labels: RunLabels) -> Logger:
        """Return the logger of one run."""
        return CSVLogger(folder, name="logs")

    def close(self, logger: Logger, summary: Mapping[str, Any]) -> None:
        """Do nothing: the record holds the summary."""


@dataclass(frozen=True, kw_only=True)
class WandbLogs:
    """One W&B run per run, with the run as its id and the flat config; offline by default.

    Runs are grouped by `sweep`, or by `config`: the seeds of one config together.

    A W&B that is missing or failing is reported once and replaced by CSV files: no run is lost to its logger.
    """

    project: str = "xlora_bench"
    entity: str | None = None
    mode: Literal["offline", "online"] = "offline"
    group: Literal["sweep", "config"] = "sweep"

    def __post_init__(self) -> None:
        if self.group not in ("sweep", "config"):
            raise ValueError(f"`logger.group` (={self.group}) must be sweep or config")

    def open(self, folder: Path, labels: RunLabels) -> Logger:
        """Start the tracker's run and return its logger."""
        try:
            import wandb  # noqa: PLC0415 - slow to import, and optional
            from lightning.pytorch.loggers import WandbLogger  # noqa: PLC0415 - slow to import

            run = wandb.init(
                project=self.project,
                entity=self.entity,
                mode=self.mode,
                dir=folder,
                id=labels.run_id,
                resume="allow",
                reinit="create_new",
                group=labels.group if self.group == "sweep" else labels.config_label,
                job_type="train",
                name=labels.name,
                tags=[tag[:64] for tag in labels.tags],
                config=dict(labels.config),
                settings=wandb.Settings(silent=True, console="off"),
            )
            return WandbLogger(experiment=run)
        except Exception as error:
            log.warning("W&B is not available (%s); curves go to CSV files in %s", error, folder)
            return CSVLogs().open(folder, labels)

    def close(self, logger: Logger, summary: Mapping[str, Any]) -> None:
        """Write `summary` into the run and finish it, so that the next run gets a run of its own."""
        if isinstance(logger, CSVLogger):
            return
        run: Any = logger.experiment  # type: ignore[attr-defined]
        try:
            run.summary.update(dict(summary))
            run.finish()
        except Exception as error:
            log.warning("the W&B run could not be finished: %s", error)


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested keys joined by dots, `{"adapter": {"rank": 8}}` as `{"adapter.rank": 8}`."""
    flattened: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            flattened |= flatten(value, f"{prefix}{key}.")
        else:
            flattened[f"{prefix}{key}"] = value
    return flattened
