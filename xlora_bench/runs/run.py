"""A run: one training, identified by its config hash.

Files of a results folder: `attempts/<id>` is written while the run trains and holds its checkpoint; it goes on there
after a kill. At the end it gets the record and is renamed to `runs/<id>`. `locks/<id>` excludes other processes.
"""

import json
import logging
import shutil
import tempfile
import zipfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from hydra.conf import HydraConf

from xlora_bench.runs.command_line import CommandLine
from xlora_bench.runs.config_hash import config_hash
from xlora_bench.runs.record import RECORD, Record, finished, run_files
from xlora_bench.system.io import end_publish, hashes_of, publish, remove_leftovers

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run: `id` (config hash), the `folder` of its results, the resolved `config` and the group `choices`."""

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
        return self.folder / RECORD

    @property
    def attempt(self) -> Path:
        """Folder that the run is trained in. It becomes `folder` when the run has ended."""
        return attempt_folder(self.folder)

    @property
    def lock(self) -> Path:
        """Path of the lock file."""
        return lock_path(self.folder)

    @property
    def checkpoint(self) -> Path:
        """Path of the checkpoint of the last whole epoch."""
        return checkpoint_path(self.attempt)

    def finished(self) -> Record | None:
        """Return the record if it is `completed` or `collapsed`, else None."""
        return finished(self.record_path)

    def repair(self) -> None:
        """End what a killed process began to publish. The lock must be held."""
        end_publish(self.folder, old=self._replaced)
        ended = finished(self.attempt / RECORD, run_id=self.id)
        if ended is None:
            return
        published = self.finished()
        if published is None or published.finished <= ended.finished:
            self._publish()
        else:  # the two folders were exchanged already: this is the old run
            self.give_up()

    def start(self, *, rerun: bool) -> None:
        """Create the folder of the attempt, or go on in that of an interrupted one; with `rerun`, in a new one."""
        if rerun:
            self.give_up()
        self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        for folder in (self.attempt, self.checkpoint.parent):
            remove_leftovers(folder, older_than=0)

    def give_up(self) -> None:
        """Delete the attempt with its checkpoint."""
        shutil.rmtree(self.attempt, ignore_errors=True)

    def end(self, record: Record) -> None:
        """Write the record with the hashes of all files of the run, and publish both by one rename."""
        files = hashes_of(self.attempt, run_files(self.attempt))
        replace(record, files=files).write(self.attempt / RECORD)
        self._publish()

    def _publish(self) -> None:
        shutil.rmtree(self.checkpoint.parent, ignore_errors=True)
        publish(self.attempt, self.folder, old=self._replaced)

    @property
    def _replaced(self) -> Path:
        return self.attempt.with_name(f"{self.id}.replaced")

    def resume_from(self) -> Path | None:
        """Return the checkpoint of an interrupted run, if there is one and it is whole."""
        return self.checkpoint if self.checkpoint.exists() and is_whole(self.checkpoint) else None

    def announce(self, job_folder: Path, *, hydra: HydraConf) -> None:
        """Write the run id and how to ask for the run again to `run.json` in the output folder of the Hydra job."""
        job_folder.mkdir(parents=True, exist_ok=True)
        content = {"run_id": self.id, "overrides": list(hydra.overrides.task), **asdict(CommandLine.of(hydra))}
        (job_folder / "run.json").write_text(json.dumps(content))


def is_whole(checkpoint: Path) -> bool:
    """Return whether a checkpoint has the checksums that torch wrote into it (CRC-32 of each part of the zip file).

    A damaged one is named in a warning, and the run starts over.
    """
    try:
        with zipfile.ZipFile(checkpoint) as file:
            damaged = file.testzip()
    except Exception as error:  # damage can raise anything
        damaged = type(error).__name__
    if damaged is not None:
        log.warning("%s is damaged (%s): this run starts over", checkpoint, damaged)
    return damaged is None


def attempt_folder(folder: Path) -> Path:
    """Return the folder in which the run that ends in `folder` (`runs/<id>`) is trained."""
    return folder.parent.parent / "attempts" / folder.name


def lock_path(folder: Path) -> Path:
    """Return the lock file of the run that ends in `folder`."""
    return folder.parent.parent / "locks" / folder.name


def checkpoint_path(attempt: Path) -> Path:
    """Return the path of the checkpoint of the last whole epoch, in the folder of an attempt."""
    return attempt / "checkpoint" / "last.ckpt"


def writable(folder: Path) -> Path:
    """Create `folder` if needed, and return it.

    Raises:
        ValueError: if it is not writable.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            f"`paths.results_dir` (={folder}) cannot be written to ({error.strerror}); choose another folder"
        ) from error
    return folder
