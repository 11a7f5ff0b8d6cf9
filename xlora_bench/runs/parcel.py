"""Runs that travel: the folder of an ended run as bytes, and its publication in another results folder."""

import io
import tarfile
from dataclasses import replace
from pathlib import Path

from xlora_bench.runs.claim import Claim
from xlora_bench.runs.record import RECORD, Record, damages, run_files
from xlora_bench.runs.run import Run, claim_path


def packed(folder: Path) -> bytes:
    """Return the record and the files of a run (`runs/<id>`) as a tar archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path in [*run_files(folder), folder / RECORD]:
            archive.add(path, path.relative_to(folder).as_posix())
    return buffer.getvalue()


def publish_packed(content: bytes, folder: Path) -> None:
    """Publish a packed run as `folder` (`runs/<id>`), unless a finished record is there already.

    Its record gets the results folder that it is in now.

    Raises:
        ValueError: if its files are not those that its record describes.
    """
    run = Run(id=folder.name, folder=folder, config={}, choices={})
    with Claim(claim_path(folder)).wait():
        if run.finished() is not None:
            return
        run = run.start(rerun=True)
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            archive.extractall(run.attempt, filter="data")
        record = Record.read(run.attempt / RECORD)
        if damaged := damages(record, run.attempt):
            raise ValueError(f"run {run.id} was damaged on its way: {'; '.join(damaged)}")
        paths = {**record.config.get("paths", {}), "results_dir": str(folder.parent.parent)}
        run.end(replace(record, config={**record.config, "paths": paths}))
