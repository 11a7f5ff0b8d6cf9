"""Loggers of a run: CSV files (default) or W&B. Tables are made from records, never from loggers."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import MinLen
from lightning.pytorch.loggers import CSVLogger, Logger

from xlora_bench.system.options import CheckedOptions

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RunLabels:
    """Labels of a run in W&B: run id, `group` (sweep), `config_label` (shared by seeds), name, tags, flat config."""

    run_id: str
    group: str
    config_label: str
    name: str
    tags: tuple[str, ...]
    config: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class CSVLogs(CheckedOptions):
    """CSV logger: `logs/version_<k>/metrics.csv` in the run's folder, with a new `k` for every start."""

    def open(self, folder: Path, labels: RunLabels) -> Logger:
        """Return the logger of one run."""
        return CSVLogger(folder, name="logs")

    def close(self, logger: Logger, summary: Mapping[str, Any]) -> None:
        """Do nothing: the record has the summary."""


@dataclass(frozen=True, kw_only=True)
class WandbLogs(CheckedOptions):
    """W&B logger: one W&B run per run, with the run id as its id and the flat config; offline by default.

    `group` is `sweep`, or `config` to group the seeds of one config. If W&B is missing or fails at the start, a warning
    is logged and the curves go to CSV files.

    Raises:
        ValueError: if `group` is neither of them.
    """

    config_group: ClassVar[str] = "logger"

    project: Annotated[str, MinLen(1)] = "xlora_bench"
    entity: str | None = None
    mode: Literal["offline", "online"] = "offline"
    group: Literal["sweep", "config"] = "sweep"

    def open(self, folder: Path, labels: RunLabels) -> Logger:
        """Start the W&B run and return its logger; fall back to CSV files on any error."""
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
        """Write `summary` into the W&B run and finish it."""
        if isinstance(logger, CSVLogger):
            return
        run: Any = logger.experiment  # type: ignore[attr-defined]
        try:
            run.summary.update(dict(summary))
            run.finish()
        except Exception as error:
            log.warning("the W&B run could not be finished: %s", error)


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Join nested keys by dots: `{"adapter": {"rank": 8}}` becomes `{"adapter.rank": 8}`."""
    flattened: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            flattened |= flatten(value, f"{prefix}{key}.")
        else:
            flattened[f"{prefix}{key}"] = value
    return flattened
