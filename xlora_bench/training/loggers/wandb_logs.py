"""Logger to Weights & Biases. A server that does not answer costs one time-out per sweep."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import MinLen
from lightning.pytorch.loggers import CSVLogger, Logger

from xlora_bench.training.loggers.run_logs import CSVLogs, RunLabels, RunLogs

log = logging.getLogger(__name__)

MARKER = "wandb-offline"
"""File in the folder of a sweep: W&B did not answer, so its other runs go offline at once."""
unanswered: set[Path | None] = set()
"""Folders of the sweeps in which W&B did not answer to this process; None: outside of sweeps."""


@dataclass(frozen=True, kw_only=True)
class WandbLogs(RunLogs):
    """W&B logger: one W&B run per run, with the run id as its id and the flat config; offline by default.

    `group` is `sweep`, or `config` to group the seeds of one config. If W&B fails online, this run and the later ones
    of the sweep are logged offline, with one warning. If it is missing or fails offline, the curves go to CSV files.

    Raises:
        ValueError: if `group` is neither of them.
    """

    config_group: ClassVar[str] = "logger"

    project: Annotated[str, MinLen(1)] = "xlora_bench"
    entity: str | None = None
    mode: Literal["offline", "online"] = "offline"
    group: Literal["sweep", "config"] = "sweep"

    def open(self, folder: Path, labels: RunLabels) -> Logger:
        """Start the W&B run and return its logger; fall back to offline files, then to CSV files, on any error."""
        if self.mode == "online" and not is_unanswered(labels.sweep_folder):
            try:
                return self._start("online", folder, labels)
            except Exception as error:
                log.warning("W&B is not available online (%s); from now on runs are logged offline", error)
                set_unanswered(labels.sweep_folder)
        try:
            return self._start("offline", folder, labels)
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

    def _start(self, mode: Literal["offline", "online"], folder: Path, labels: RunLabels) -> Logger:
        import wandb  # noqa: PLC0415 - slow to import, and optional
        from lightning.pytorch.loggers import WandbLogger  # noqa: PLC0415 - slow to import

        run = wandb.init(
            project=self.project,
            entity=self.entity,
            mode=mode,
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


def is_unanswered(sweep_folder: Path | None) -> bool:
    """Return whether W&B did not answer before in this sweep, in this or another process."""
    return sweep_folder in unanswered or (sweep_folder is not None and (sweep_folder / MARKER).exists())


def set_unanswered(sweep_folder: Path | None) -> None:
    """Let the later runs of the sweep go offline at once."""
    unanswered.add(sweep_folder)
    if sweep_folder is not None and sweep_folder.is_dir():
        (sweep_folder / MARKER).touch()
