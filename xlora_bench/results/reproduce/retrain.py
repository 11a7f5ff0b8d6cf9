"""Retrain a recorded run from its record, in another folder."""

import copy
import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from xlora_bench.results.reproduce.run_artifacts import RunArtifacts, read_run
from xlora_bench.runs.config_folder import CACHE_DIR
from xlora_bench.runs.record import Record
from xlora_bench.system.torch_threads import threads
from xlora_bench.training.caches import Caches
from xlora_bench.training.options import PARTS
from xlora_bench.training.resolve import RunRequest, request_of
from xlora_bench.training.train import get_or_train
from xlora_bench.training.trust import AGAIN, BASES, check_recorded, parts_from_record

log = logging.getLogger(__name__)

RUN_ID = "[0-9a-f]{16}"
QUIET = {"enable_progress_bar": False, "enable_model_summary": False}


def retrain(
    run: RunArtifacts,
    *,
    recorded: Callable[[str], RunArtifacts],
    folder: Path,
    data_dir: Path | None,
    trust: Sequence[str] = (),
) -> RunArtifacts:
    """Train a recorded run again in results folder `folder`, with the recorded number of threads; return the new run.

    A parent run, looked up by `recorded(run_id)`, is retrained first. The old record and its folder stay unchanged, and
    nothing is logged to W&B. The record may name classes of this package and of the modules in `trust`.

    Raises:
        ValueError: if the record names other classes, or its data is missing or has another fingerprint.
    """
    request = resolve_again(run.record, recorded=recorded, folder=folder, data_dir=data_dir, trust=trust)
    with threads(run.record.machine.get("threads")):
        get_or_train(request)
    return read_run(request.run.folder)


def resolve_again(
    record: Record,
    *,
    recorded: Callable[[str], RunArtifacts],
    folder: Path,
    data_dir: Path | None,
    trust: Sequence[str] = (),
    children: Sequence[str] = (),
) -> RunRequest:
    """Return the run request of `record`, as `resolve` does, but from the recorded config; parents included.

    `children` are the ids of the runs that start from this one.

    Raises:
        ValueError: if the parent is no run id, or one of the run's own children.
    """
    config = config_for(record, folder=folder, data_dir=data_dir)
    of = f"run {record.run_id}"
    check_recorded(config, tuple(BASES), of=of, trust=trust)
    parts = parts_from_record(config, PARTS, of=of, trust=trust)
    paths = config["paths"]
    parent = None
    if parent_id := record.hashes.get("parent"):
        known = (*children, record.run_id)
        check_parent_id(parent_id, of=of, children=known)
        parents_record = recorded(parent_id).record
        parent = resolve_again(
            parents_record, recorded=recorded, folder=folder, data_dir=data_dir, trust=trust, children=known
        )
    request = request_of(config, parts, choices=record.choices, caches=Caches(), parent=parent)
    if request.corpus.fingerprint != record.hashes.get("data"):
        location = paths["data_dir"] or "the Hub"
        raise ValueError(
            f"run {record.run_id} was trained on other data: task {parts['task'].name} from {location} has fingerprint "
            f"{request.corpus.fingerprint[:12]}, recorded is {str(record.hashes.get('data'))[:12]}; give --data-dir"
        )
    if request.run.id != record.run_id:
        log.warning("run %s now has the id %s: the hashed config keys have changed", record.run_id, request.run.id)
    return request


def check_parent_id(parent_id: str, *, of: str, children: Sequence[str]) -> None:
    """Raise a ValueError unless the parent that a record names is a run id, and none of its `children`."""
    if not re.fullmatch(RUN_ID, str(parent_id)):
        raise ValueError(f"{of}: `hashes.parent` (={parent_id!r}) must be a run id, 16 hex digits; {AGAIN}")
    if parent_id in children:
        raise ValueError(f"{of}: `hashes.parent` (={parent_id!r}) starts from this run itself; {AGAIN}")


def config_for(record: Record, *, folder: Path, data_dir: Path | None) -> dict[str, Any]:
    """Return the recorded config with `folder` as results folder, local data, a CSV logger and no progress bar."""
    config = copy.deepcopy(record.config)
    paths = config.get("paths") or {}
    config["paths"] = {
        "data_dir": data_location(paths.get("data_dir"), given=data_dir, run_id=record.run_id),
        "results_dir": str(folder),
        "cache_dir": CACHE_DIR,
    }
    config["logger"] = {"_target_": "xlora_bench.CSVLogs"}
    config["trainer"] = {**config["trainer"], **QUIET, "default_root_dir": str(folder)}
    config["rerun"] = False
    config["monitor"] = config.get("monitor") or {"every_n_steps": 50}
    return config


def data_location(recorded: str | None, *, given: Path | None, run_id: str) -> str | None:
    """Return the data folder to use: the given one, else the recorded one (None: the Hub).

    Raises:
        ValueError: if the recorded folder does not exist.
    """
    if given is not None:
        return str(given.expanduser())
    if recorded is not None and not Path(recorded).expanduser().is_dir():
        raise ValueError(f"run {run_id} read its data from {recorded}, which is not there: give --data-dir DIR")
    return None if recorded is None else str(Path(recorded).expanduser())
