"""Archive: the records of a table in one small file (`xlora-bench archive`).

For each run it has what `verify` needs to retrain and compare it: config, choices, hashes, code, versions, machine,
metrics of every epoch, and digests of predictions and trained tensors. It has no paths and no data.
"""

import gzip
import json
import logging
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from xlora_bench.results.reproduce.retrain import check_parent_id
from xlora_bench.results.reproduce.run_artifacts import RunArtifacts, find_run, read_run
from xlora_bench.runs.config_hash import relevant
from xlora_bench.runs.record import Record, record_paths
from xlora_bench.system.io import write_atomically

log = logging.getLogger(__name__)

ARCHIVE = "records.jsonl.gz"
"""Default file name of an archive."""


def runs_of_report(report: Path) -> list[RunArtifacts]:
    """Return the recorded runs of a report, in its order, followed by their parent runs.

    Raises:
        ValueError: if the folder is no report, or a run has no record any more.
    """
    table = report / "runs.csv"
    if not table.is_file():
        raise ValueError(f"`{report}` is no folder of a report: it has no runs.csv")
    run_ids = pd.read_csv(table, usecols=["run_id"], dtype=str)["run_id"].dropna().unique()
    return with_parents([str(run_id) for run_id in run_ids], results_dir=report.resolve().parents[1])


def with_parents(run_ids: Sequence[str], *, results_dir: Path) -> list[RunArtifacts]:
    """Return the runs `run_ids` of a results folder, followed by their parent runs.

    Raises:
        ValueError: if a run has no record, or its parent is no run id.
    """
    runs: dict[str, RunArtifacts] = {}
    wanted = list(run_ids)
    for run_id in wanted:  # the list grows: parents are appended
        if run_id not in runs:
            runs[run_id] = find_run(run_id, results_dir=results_dir)
            parent = runs[run_id].record.hashes.get("parent")
            if parent:
                check_parent_id(parent, of=f"run {run_id}", children=())
                wanted.append(parent)
    return list(runs.values())


def write_archive(runs: Iterable[RunArtifacts], path: Path) -> None:
    """Write the runs to `path`: gzip, one JSON line per run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(f"{json.dumps(content_of(run), sort_keys=True, separators=(',', ':'))}\n" for run in runs)
    write_atomically(path, gzip.compress(lines.encode(), mtime=0))


def content_of(run: RunArtifacts) -> dict[str, Any]:
    """Return the archive entry of a run: its record without cosmetic config keys, and the digests of its files.

    The number of devices is kept, without which a run cannot be repeated to the bit.
    """
    content = run.record.as_json()
    if Path(str(content["config"].get("model", {}).get("name", ""))).is_absolute():
        log.warning("run %s has its model in a folder of this machine: nobody else can verify it", run.record.run_id)
    config, trainer = relevant(content["config"]), content["config"].get("trainer", {})
    if "devices" in trainer:
        config["trainer"]["devices"] = trainer["devices"]
    return {**content, "config": config, "digests": dict(run.digests)}


def read_archive(path: Path) -> dict[str, RunArtifacts]:
    """Return the runs in an archive, by run id.

    Raises:
        ValueError: if the file is not an archive.
    """
    runs = []
    try:
        for line in gzip.decompress(path.read_bytes()).decode().splitlines():
            content = json.loads(line)
            digests = dict(content.pop("digests"))
            runs.append(RunArtifacts(record=Record.from_json(content), folder=None, recorded_digests=digests))
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is no archive of records: {type(error).__name__}: {error}") from error
    return {run.record.run_id: run for run in runs}


def find_recorded(run_name: str, *, location: Path) -> RunArtifacts:
    """Return the run named by a folder, a record file, or an id in `location` (results folder or archive).

    Raises:
        ValueError: if there is none, or several ids match.
    """
    if not location.is_file() or Path(run_name).exists():
        return find_run(run_name, results_dir=location)
    runs = read_archive(location)
    matching = [run_id for run_id in runs if run_id.startswith(run_name)]
    if len(matching) != 1:
        raise ValueError(f"{run_name} names {len(matching)} of the {len(runs)} runs in {location}; it must name one")
    return runs[matching[0]]


def recorded_in(location: Path) -> dict[str, RunArtifacts]:
    """Return the recorded runs of a report folder, a results folder or an archive, by run id.

    Raises:
        ValueError: if `location` is none of these.
    """
    if location.is_file():
        return read_archive(location)
    if (location / "runs.csv").is_file():
        return {run.record.run_id: run for run in runs_of_report(location)}
    if (location / ARCHIVE).is_file():
        return read_archive(location / ARCHIVE)
    paths = record_paths(location)
    if not paths:
        raise ValueError(
            f"`{location}` is neither a folder of a report (with runs.csv), nor a results folder (with runs), nor a "
            f"archive ({ARCHIVE})"
        )
    runs = []
    for path in paths:
        try:
            runs.append(read_run(path.parent))
        except ValueError as error:
            log.warning("%s", error)
    return {run.record.run_id: run for run in runs}
