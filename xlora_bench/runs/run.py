"""A run: one training run named by its config, with its folder and its record."""

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
    """One run: its `id`, its `folder`, the resolved `config` and the group `choices` that name it."""

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

        What a run starts from is the run `parent`, however `start_from` says it.
        """
        run_id = config_hash({**config, "start_from": parent}, data=data)
        folder = results_dir / "runs" / run_id
        return cls(id=run_id, folder=folder, config=config, choices=choices)

    @property
    def record_path(self) -> Path:
        """Where the record lies, once the run has ended."""
        return self.folder / "record.json"

    @property
    def checkpoint(self) -> Path:
        """Where the state after the last whole epoch lies."""
        return self.folder / "checkpoint" / "last.ckpt"

    def finished(self) -> Record | None:
        """Return the record of a run that need not be trained again."""
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
        """Tell the sweep which run this job is: it reads `run.json` in the job's output folder."""
        job_folder.mkdir(parents=True, exist_ok=True)
        (job_folder / "run.json").write_text(json.dumps({"run_id": self.id}))


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
