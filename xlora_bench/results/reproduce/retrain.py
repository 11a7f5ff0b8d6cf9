"""Train a recorded cell once more from its record alone, somewhere else."""

import copy
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from xlora_bench.data.datamodule import TextData
from xlora_bench.results.reproduce.run_artifacts import Run, read_run
from xlora_bench.runs.record import Record
from xlora_bench.runs.run import Cell
from xlora_bench.training.train import PARTS, Asked, ensure
from xlora_bench.training.trust import BASES, check_recorded, parts_from_record

log = logging.getLogger(__name__)

CACHE_DIR = "~/.cache/xlora_bench"
QUIET = {"enable_progress_bar": False, "enable_model_summary": False}


def retrain(
    run: Run, *, recorded: Callable[[str], Run], folder: Path, data_dir: Path | None, trust: Sequence[str] = ()
) -> Run:
    """Train the cell of `run` again with its results in `folder`, on as many threads as it had; return the new run.

    A cell that starts from another has that one, `recorded` by its id, trained again first. The record itself and its
    folder are not touched, and nothing is logged to W&B. The record may name classes of this package and of the modules
    in `trust`.

    Raises:
        ValueError: if the record names anything else, or the data is not there, or not what it was.
    """
    asked = ask_again(run.record, recorded=recorded, folder=folder, data_dir=data_dir, trust=trust)
    with threads(run.record.machine.get("threads")):
        ensure(asked)
    return read_run(asked.cell.folder)


def ask_again(
    record: Record, *, recorded: Callable[[str], Run], folder: Path, data_dir: Path | None, trust: Sequence[str] = ()
) -> Asked:
    """Return the cell of `record` as `train.ask` would, but from the recorded config."""
    config = config_for(record, folder=folder, data_dir=data_dir)
    of = f"cell {record.cell}"
    check_recorded(config, tuple(BASES), of=of, trust=trust)
    parts = parts_from_record(config, PARTS, of=of, trust=trust)
    paths = config["paths"]
    data = TextData(
        parts["task"],
        tokenizer=parts["model"].tokenizer(),
        seed=record.seed,
        data_dir=Path(paths["data_dir"]) if paths["data_dir"] else None,
        cache_dir=Path(paths["cache_dir"]).expanduser(),
    )
    if data.fingerprint != record.hashes.get("data"):
        place = paths["data_dir"] or "the Hub"
        raise ValueError(
            f"cell {record.cell} was trained on other data: task {parts['task'].name} from {place} has the fingerprint "
            f"{data.fingerprint[:12]}, recorded is {str(record.hashes.get('data'))[:12]}; give --data-dir"
        )
    parent = None
    if parent_id := record.hashes.get("parent"):
        start = recorded(parent_id).record
        parent = ask_again(start, recorded=recorded, folder=folder, data_dir=data_dir, trust=trust)
    cell = Cell.of(
        config,
        choices=record.choices,
        data=data.fingerprint,
        results_dir=folder,
        parent=parent.cell.id if parent else None,
    )
    if cell.id != record.cell:
        log.warning("cell %s is now named %s: what names a cell has changed since", record.cell, cell.id)
    return Asked(cell=cell, parts=parts, data=data, parent=parent)


def config_for(record: Record, *, folder: Path, data_dir: Path | None) -> dict[str, Any]:
    """Return the recorded config with its results in `folder`, silent, and with the data where it is here."""
    config = copy.deepcopy(record.config)
    paths = config.get("paths") or {}
    config["paths"] = {
        "data_dir": data_place(paths.get("data_dir"), given=data_dir, cell=record.cell),
        "results_dir": str(folder),
        "cache_dir": paths.get("cache_dir") or CACHE_DIR,
    }
    config["logger"] = {"_target_": "xlora_bench.CSVLogs"}
    config["trainer"] = {**config["trainer"], **QUIET, "default_root_dir": str(folder)}
    config["rerun"] = False
    config["monitor"] = config.get("monitor") or {"every_n_steps": 50}
    return config


def data_place(recorded: str | None, *, given: Path | None, cell: str) -> str | None:
    """Return the data folder to use: the given one, else the recorded one (None: the Hub)."""
    if given is not None:
        return str(given.expanduser())
    if recorded is not None and not Path(recorded).expanduser().is_dir():
        raise ValueError(f"cell {cell} read its data from {recorded}, which is not there: give --data-dir DIR")
    return None if recorded is None else str(Path(recorded).expanduser())


@contextmanager
def threads(number: int | None) -> Iterator[None]:
    """Let torch use `number` threads within a `with` block."""
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
