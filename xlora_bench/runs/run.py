"""A cell: one training run named by its config, with its folder and its record."""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xlora_bench.runs.config_hash import identity
from xlora_bench.runs.record import Record, finished


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell: its `id`, its `folder`, the resolved `config` and the group `choices` that name it."""

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
    ) -> "Cell":
        """Return the cell of `config` on the data with fingerprint `data`, and make its folder.

        What a cell starts from is the cell `parent`, however `start_from` says it.
        """
        cell_id = identity({**config, "start_from": parent}, data=data)
        folder = results_dir / "cells" / cell_id
        folder.mkdir(parents=True, exist_ok=True)
        return cls(id=cell_id, folder=folder, config=config, choices=choices)

    @property
    def record_path(self) -> Path:
        """Where the record lies, once the cell has ended."""
        return self.folder / "record.json"

    @property
    def checkpoint(self) -> Path:
        """Where the state after the last whole epoch lies."""
        return self.folder / "checkpoint" / "last.ckpt"

    def finished(self) -> Record | None:
        """Return the record of a cell that need not be trained again."""
        return finished(self.record_path)

    def start(self, *, rerun: bool) -> None:
        """Make ready for training; `rerun` forgets an interrupted run (a finished record stays until the new one)."""
        if rerun:
            shutil.rmtree(self.checkpoint.parent, ignore_errors=True)
        self.checkpoint.parent.mkdir(exist_ok=True)

    def end(self, record: Record) -> None:
        """Write the record, then drop the checkpoint that is no longer needed."""
        record.write(self.record_path)
        shutil.rmtree(self.checkpoint.parent, ignore_errors=True)

    def resume_from(self) -> Path | None:
        """Return the checkpoint of an interrupted run, if there is one."""
        return self.checkpoint if self.checkpoint.exists() else None

    def announce(self, job_folder: Path) -> None:
        """Tell the sweep which cell this job is: it reads `cell.json` in the job's output folder."""
        job_folder.mkdir(parents=True, exist_ok=True)
        (job_folder / "cell.json").write_text(json.dumps({"cell": self.id}))


def writable(folder: Path) -> Path:
    """Return `folder`, made if needed.

    Raises:
        ValueError: if nothing can be written there.
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
