"""Logger to Trackio, for which Lightning has none."""

from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from annotated_types import MinLen
from lightning.pytorch.loggers import Logger

from xlora_bench.training.loggers.run_logs import RunLabels, RunLogs


@dataclass(frozen=True, kw_only=True)
class TrackioLogs(RunLogs):
    """Trackio logger: one Trackio run per run in the local database of Trackio, with the sweep as its group."""

    config_group: ClassVar[str] = "logger"

    project: Annotated[str, MinLen(1)] = "xlora_bench"

    def open(self, folder: Path, labels: RunLabels) -> Logger:
        """Start the Trackio run and return its logger."""
        import trackio  # noqa: PLC0415 - slow to import, and optional

        config = {**labels.config, "run_id": labels.run_id}
        return TrackioLogger(
            trackio.init(self.project, name=f"{labels.name}-{labels.run_id}", group=labels.group, config=config)
        )

    def close(self, logger: Logger, summary: Mapping[str, Any]) -> None:
        """Finish the Trackio run."""
        assert isinstance(logger, TrackioLogger)
        logger.run.finish()


class TrackioLogger(Logger):
    """Lightning's interface to a run of Trackio."""

    def __init__(self, run: Any) -> None:
        super().__init__()
        self.run = run

    @property
    def name(self) -> str:
        """Name of the logger."""
        return "trackio"

    @property
    def version(self) -> str:
        """Name of the run."""
        return str(self.run.name)

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Log the values of one step."""
        self.run.log(dict(metrics), step=step)

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the run has the config from its start."""
