"""Logger to Weights & Biases. A server that does not answer costs one time-out per sweep."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import MinLen
from lightning.pytorch.loggers import CSVLogger, Logger

from xlora_bench.system.escape import one_line, shortened
from xlora_bench.training.loggers.run_logs import CSVLogs, RunLabels, RunLogs

log = logging.getLogger(__name__)

MARKER = "wandb-offline"
"""File in the folder of a sweep: W&B did not answer, so its other runs go offline at once."""
LONGEST = 128
"""Characters of the name of a run or a group that W&B shows."""
LONGEST_TAG = 64
"""Characters that W&B allows in a tag."""
ARTIFACTS = {"adapter": ("adapter.safetensors", "adapter_best.safetensors"), "predictions": ("predictions.parquet",)}
"""By type, the files of a run that `artifacts` uploads."""
unanswered: set[Path | None] = set()
"""Folders of the sweeps in which W&B did not answer to this process; None: outside of sweeps."""


@dataclass(frozen=True, kw_only=True)
class WandbLogs(RunLogs):
    """W&B logger: one W&B run per run, with the run id as its id; offline by default.

    Its config has the names of `RunLabels` and, below `options`, the nested config. All runs of a results folder write
    to its folder `wandb`. `group` is `sweep`, or `config` to group the seeds of one config. With `artifacts` the
    trained adapter and the predictions are logged as artifacts. If W&B fails online, this run and the later ones of the
    sweep are logged offline, with one warning. If it is missing or fails offline, the curves go to CSV files.

    Raises:
        ValueError: if `group` is neither of them.
    """

    config_group: ClassVar[str] = "logger"

    project: Annotated[str, MinLen(1)] = "xlora_bench"
    entity: str | None = None
    mode: Literal["offline", "online"] = "offline"
    group: Literal["sweep", "config"] = "sweep"
    artifacts: bool = False

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
            if self.artifacts and logger.save_dir is not None:
                log_artifacts(run, Path(logger.save_dir))
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
            dir=labels.results_dir or folder,
            id=labels.run_id,
            resume="allow",
            reinit="create_new",
            group=label(labels.group if self.group == "sweep" else labels.config_label),
            job_type="train",
            name=label(labels.name),
            tags=list(dict.fromkeys(label(tag, LONGEST_TAG) for tag in labels.tags)),
            config={**labels.names, "options": dict(labels.options)},
            settings=wandb.Settings(silent=True, console="off", symlink=False),
        )
        define_axes(run, labels.headline)
        return WandbLogger(experiment=run, save_dir=folder)


def define_axes(run: Any, headline: str | None) -> None:
    """Set the horizontal axis of each curve, steps or epochs, and the summaries: largest headline, least loss."""
    for names in ("train/*", "factors/*", "lr-*"):
        run.define_metric(names, step_metric="trainer/global_step")
    run.define_metric("validation/*", step_metric="validation/epoch")
    run.define_metric("validation/loss", step_metric="validation/epoch", summary="min")
    if headline is not None:
        run.define_metric(f"validation/{headline}", step_metric="validation/epoch", summary="max")


def log_artifacts(run: Any, folder: Path) -> None:
    """Log the files of a run as artifacts, at most one of each type in `ARTIFACTS`; W&B copies them."""
    import wandb  # noqa: PLC0415 - slow to import, and optional

    for kind, names in ARTIFACTS.items():
        paths = [path for name in names if (path := folder / name).exists()]
        artifact = wandb.Artifact(f"{kind}-{run.id}", type=kind)
        for path in paths:
            artifact.add_file(str(path))
        if paths:
            run.log_artifact(artifact)


def label(text: str, longest: int = LONGEST) -> str:
    """Return a label as one line of at most `longest` characters."""
    return shortened(one_line(text), longest)


def sync_command(results_dir: Path) -> str:
    """Return the command that uploads the offline runs of a results folder; uploaded ones are skipped."""
    return f"wandb sync {quote(str(results_dir / 'wandb'))}/offline-run-*"


def is_unanswered(sweep_folder: Path | None) -> bool:
    """Return whether W&B did not answer before in this sweep, in this or another process."""
    return sweep_folder in unanswered or (sweep_folder is not None and (sweep_folder / MARKER).exists())


def set_unanswered(sweep_folder: Path | None) -> None:
    """Let the later runs of the sweep go offline at once."""
    unanswered.add(sweep_folder)
    if sweep_folder is not None and sweep_folder.is_dir():
        (sweep_folder / MARKER).touch()
