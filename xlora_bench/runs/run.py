"""A run: one training, identified by its config hash, with a folder and a record."""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xlora_bench.runs.config_hash import config_hash
from xlora_bench.runs.record import Record, finished


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
        return self.checkpoint if self.checkpoint.exists() else None

    def announce(self, job_folder: Path) -> None:
        """Write the run id to `run.json` in the output folder of the Hydra job, where the sweep reads it."""
        job_folder.mkdir(parents=True, exist_ok=True)
        (job_folder / "run.json").write_text(json.dumps({"run_id": self.id}))


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
