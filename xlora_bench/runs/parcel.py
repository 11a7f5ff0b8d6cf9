"""Runs that travel: an ended run or the last attempt at one as bytes, and its publication in another results folder."""

import io
import logging
import tarfile
from dataclasses import replace
from pathlib import Path

from xlora_bench.runs.claim import Claim, ClaimLostError
from xlora_bench.runs.record import RECORD, Record, damages, run_files
from xlora_bench.runs.run import Run, attempts_folder, claim_path, newest_number, progress_path
from xlora_bench.runs.sent_attempts import ENDING, kept_numbers, packed_attempt

log = logging.getLogger(__name__)


def packed(folder: Path) -> bytes:
    """Return the record and the files of a run (`runs/<id>`) as a tar archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path in [*run_files(folder), folder / RECORD]:
            archive.add(path, path.relative_to(folder).as_posix())
    return buffer.getvalue()


def newest_attempt(folder: Path) -> tuple[int, bytes] | None:
    """Return the number and the files, as a tar archive, of the last attempt at the run that ends in `folder`.

    None if there is none, or it is too large to travel.

    Raises:
        OSError: if it cannot be read, such as one that has just ended.
    """
    number, attempts = newest_number(folder), attempts_folder(folder)
    if not number:
        return None
    if number in kept_numbers(attempts):
        return number, (attempts / f"{number}{ENDING}").read_bytes()
    attempt = attempts / str(number)
    content = packed_attempt(attempt, leave_out=progress_path(attempt))
    return None if content is None else (number, content)


def publish_packed(content: bytes, folder: Path, *, replaces: str | None = None) -> None:
    """Publish a packed run as `folder` (`runs/<id>`), unless a finished record is there already.

    `replaces` is the time `finished` of the record that the run was trained to replace (`rerun`). If another record is
    there by now, it stays: so the first of two publishers wins. A failed run replaces no finished one. The published
    record gets the results folder that it is in now.

    Raises:
        ValueError: if its files are not those that its record describes.
    """
    run = Run(id=folder.name, folder=folder, config={}, choices={})
    with Claim(claim_path(folder)).wait():
        run.repair()
        there = run.finished()
        if there is not None and there.finished != replaces:
            return
        run = run.start(rerun=True)
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            archive.extractall(run.attempt, filter="data")
        record = Record.read(run.attempt / RECORD)
        if damaged := damages(record, run.attempt):
            raise ValueError(f"run {run.id} was damaged on its way: {'; '.join(damaged)}")
        if there is not None and record.status == "failed":
            run.give_up()
            return
        paths = {**record.config.get("paths", {}), "results_dir": str(folder.parent.parent)}
        try:
            run.end(replace(record, config={**record.config, "paths": paths}))
        except ClaimLostError as lost:
            log.warning("%s: the run that came home is thrown away", lost)
            run.give_up()
