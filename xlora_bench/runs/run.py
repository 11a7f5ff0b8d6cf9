"""A run: one training, identified by its config hash, with a folder and a record."""

import json
import logging
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hydra.conf import HydraConf

from xlora_bench.runs.command_line import CommandLine
from xlora_bench.runs.config_hash import config_hash
from xlora_bench.runs.record import Record, finished

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run: `id` (config hash), `folder`, the resolved `config` and the group `choices`."""

    id: str
    folder: Path
    config: dict[str, Any]
    choices: dict[str, str]

    @classmethod
    def of(
        cls,
        config: dict[str, Any],
        *,
        choices: dict[str, str],
        data: str,
        results_dir: Path,
        parent: str | None = None,
    ) -> "Run":
        """Return the run of `config` on the data with fingerprint `data`.

        In the config hash, the run id `parent` replaces the value of `start_from`.
        """
        run_id = config_hash({**config, "start_from": parent}, data=data)
        folder = results_dir / "runs" / run_id
        return cls(id=run_id, folder=folder, config=config, choices=choices)

    @property
    def record_path(self) -> Path:
        """Path of the record, which exists once the run has ended."""
        return self.folder / "record.json"

    @property
    def checkpoint(self) -> Path:
        """Path of the checkpoint of the last whole epoch."""
        return checkpoint_path(self.folder)

    def finished(self) -> Record | None:
        """Return the record if it is `completed` or `collapsed`, else None."""
        return finished(self.record_path)

    def start(self, *, rerun: bool) -> None:
        """Create the checkpoint folder; with `rerun`, delete the old checkpoint but keep the old record."""
        if rerun:
            shutil.rmtree(self.checkpoint.parent, ignore_errors=True)
        self.checkpoint.parent.mkdir(exist_ok=True)

    def end(self, record: Record) -> None:
        """Write the record, then delete the checkpoint, which is no longer needed."""
        record.write(self.record_path)
        shutil.rmtree(self.checkpoint.parent, ignore_errors=True)

    def resume_from(self) -> Path | None:
        """Return the checkpoint of an interrupted run, if there is one."""
        return self.checkpoint if self.checkpoint.exists() and is_readable(self.checkpoint) else None

    def announce(self, job_folder: Path, *, hydra: HydraConf) -> None:
        """Write the run id and how to ask for the run again to `run.json` in the output folder of the Hydra job."""
        job_folder.mkdir(parents=True, exist_ok=True)
        content = {"run_id": self.id, "overrides": list(hydra.overrides.task), **asdict(CommandLine.of(hydra))}
        (job_folder / "run.json").write_text(json.dumps(content))


def is_readable(checkpoint: Path) -> bool:
    """Return whether a checkpoint can be loaded; a damaged one is named in a warning, and the run starts over."""
    import torch  # noqa: PLC0415 - slow to import

    try:
        torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        log.warning("%s is damaged (%s): this run starts over", checkpoint, type(error).__name__)
        return False
    return True


def checkpoint_path(folder: Path) -> Path:
    """Return the path of the checkpoint of the last whole epoch, in the folder of a run."""
    return folder / "checkpoint" / "last.ckpt"


def writable(folder: Path) -> Path:
    """Create `folder` if needed, and return it.

    Raises:
        ValueError: if it is not writable.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ValueError(
            f"`paths.results_dir` (={folder}) cannot be written to ({error.strerror}); choose another folder"
        ) from error
    return folder
