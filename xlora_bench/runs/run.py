"""A run: one training, identified by its config hash.

Files of a results folder: whoever holds the claim `claims/<id>` trains the run in `attempts/<id>/<number>`, which holds
its checkpoint. At the end that folder gets the record and is renamed to `runs/<id>`. After a kill the next holder of
the claim goes on in an attempt of its own, with a larger number, from a copy of the checkpoint. So a process that lost
its claim without noticing can neither change what its successor reads nor replace what it has published.
"""

import errno
import json
import logging
import os
import shutil
import tempfile
import time
import zipfile
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from hydra.conf import HydraConf

from xlora_bench.runs.claim import ClaimLostError
from xlora_bench.runs.command_line import CommandLine
from xlora_bench.runs.config_hash import config_hash
from xlora_bench.runs.record import RECORD, Record, finished, run_files
from xlora_bench.runs.sent_attempts import COPY, ENDING, kept_numbers, unpack_attempt
from xlora_bench.system.io import end_publish, hashes_of, publish

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run: `id` (config hash), the `folder` of its results, the resolved `config` and the group `choices`.

    `number` is that of the attempt; 0 as long as there is none.
    """

    id: str
    folder: Path
    config: dict[str, Any]
    choices: dict[str, str]
    number: int = 0

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
        return attempts_folder(self.folder) / str(self.number)

    @property
    def claim(self) -> Path:
        """Path of the claim file."""
        return claim_path(self.folder)

    @property
    def checkpoint(self) -> Path:
        """Path of the checkpoint of the last whole epoch."""
        return checkpoint_path(self.attempt)

    @property
    def progress(self) -> Path:
        """Path of the file that says how far the attempt is."""
        return progress_path(self.attempt)

    def finished(self) -> Record | None:
        """Return the record if it is `completed` or `collapsed`, else None."""
        return finished(self.record_path)

    def repair(self) -> None:
        """End what a killed process began to publish. The claim must be held."""
        end_publish(self.folder, old=self._replaced)
        for number in attempt_numbers(self.folder):
            one = replace(self, number=number)
            ended = finished(one.attempt / RECORD, run_id=self.id)
            if ended is None:
                continue
            published = self.finished()
            if ended.attempt == number and (published is None or published.attempt < number):
                one._publish()
            else:  # the two folders were exchanged already: this is the old run
                one.give_up()

    def start(self, *, rerun: bool) -> "Run":
        """Return the run with the number and the folder of a new attempt. The claim must be held.

        It goes on from the files of an interrupted attempt, which it replaces, even one that was sent here; with
        `rerun` from none.
        """
        attempts = attempts_folder(self.folder)
        for copied in attempts.glob(f"*{COPY}"):  # a killed process began it
            shutil.rmtree(copied, ignore_errors=True)
        older, sent = attempt_numbers(self.folder), kept_numbers(attempts)
        if sent and sent[-1] > max(older, default=0) and unpack_attempt(attempts, sent[-1]):
            older.append(sent[-1])
        new = replace(self, number=max(time.time_ns() // 10**6, *(number + 1 for number in [0, *older, *sent])))
        if older and not rerun:
            copied, unfinished = new.attempt.with_name(f"{new.attempt.name}{COPY}"), shutil.ignore_patterns(".*.tmp")
            old = replace(self, number=older[-1]).attempt
            shutil.copytree(old, copied, ignore=unfinished, copy_function=_link_or_copy)
            copied.rename(new.attempt)
        new.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        for number in sent:
            (attempts / f"{number}{ENDING}").unlink(missing_ok=True)
        for number in older:
            replace(self, number=number).give_up()
        return new

    def give_up(self) -> None:
        """Delete the attempt with its checkpoint."""
        shutil.rmtree(self.attempt, ignore_errors=True)
        with suppress(OSError):  # there are others
            self.attempt.parent.rmdir()

    def end(self, record: Record) -> None:
        """Write the record with the hashes of all files of the run, and publish both by one rename.

        Raises:
            ClaimLostError: if a process that took over the run has published it already.
        """
        if not self.attempt.is_dir():
            raise ClaimLostError(f"{self.attempt} was removed by a later attempt")
        files = hashes_of(self.attempt, run_files(self.attempt))
        replace(record, files=files, attempt=self.number).write(self.attempt / RECORD)
        self._publish()
        shutil.rmtree(attempts_folder(self.folder), ignore_errors=True)

    def _publish(self) -> None:
        shutil.rmtree(self.checkpoint.parent, ignore_errors=True)
        published = self.finished()
        if published is not None and published.attempt > self.number:
            raise ClaimLostError(f"{self.folder} was published by a later attempt, {published.attempt}")
        try:
            publish(self.attempt, self.folder, old=self._replaced)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                raise ClaimLostError(f"{self.folder} was published by another process just now") from error
            raise

    @property
    def _replaced(self) -> Path:
        return attempts_folder(self.folder) / "replaced"

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


def attempts_folder(folder: Path) -> Path:
    """Return the folder of the attempts at the run that ends in `folder` (`runs/<id>`)."""
    return folder.parent.parent / "attempts" / folder.name


def attempt_numbers(folder: Path) -> list[int]:
    """Return the numbers of the attempts at the run that ends in `folder`, in rising order."""
    return sorted(int(path.name) for path in attempts_folder(folder).glob("*") if path.name.isdecimal())


def newest_number(folder: Path) -> int:
    """Return the number of the last attempt at the run that ends in `folder`, be it a packed one; 0 if none is left."""
    return max([0, *attempt_numbers(folder), *kept_numbers(attempts_folder(folder))])


def last_attempt(folder: Path) -> Path | None:
    """Return the folder of the last attempt at the run that ends in `folder`; None if there is none."""
    numbers = attempt_numbers(folder)
    return attempts_folder(folder) / str(numbers[-1]) if numbers else None


def claim_path(folder: Path) -> Path:
    """Return the claim file of the run that ends in `folder`."""
    return folder.parent.parent / "claims" / folder.name


def _link_or_copy(source: str, target: str) -> None:
    """Copy a file; a checkpoint, which is never changed in place, gets a second name instead where that is possible."""
    try:
        if not source.endswith(".ckpt"):
            raise OSError
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def checkpoint_path(attempt: Path) -> Path:
    """Return the path of the checkpoint of the last whole epoch, in the folder of an attempt."""
    return attempt / "checkpoint" / "last.ckpt"


def progress_path(attempt: Path) -> Path:
    """Return the path of the file that says how far an attempt is; it is no part of the results."""
    return attempt / "checkpoint" / "progress.json"


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
