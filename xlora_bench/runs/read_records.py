"""Read the records of a results folder; those that have not changed since the last time come from an index."""

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from xlora_bench.runs.record import RECORD, Record, run_folder
from xlora_bench.system.file_index import FileIndex

INDEX = ".index"
"""The folder of the indices in a results folder."""


def read_records(results_dir: Path, run_ids: Iterable[str]) -> dict[str, Record | ValueError]:
    """Return the record of each run, or the error if it cannot be read; nothing for a run without one.

    Nobody may change the mappings of these records: runs share them.
    """
    index = _index(results_dir.absolute() / INDEX / "records.json")
    records: dict[str, Record | ValueError] = {}
    runs = results_dir / "runs"
    for run_id in run_ids:
        path = runs / f"{run_id}/{RECORD}"
        path = path if path.exists() else run_folder(results_dir, run_id) / RECORD
        try:
            records[run_id] = Record(**index.content(run_id, path, _content))
        except FileNotFoundError:
            continue
        except (TypeError, ValueError) as error:
            records[run_id] = ValueError(str(error))
    index.write()
    return records


@lru_cache(maxsize=2)
def _index(path: Path) -> FileIndex:
    return FileIndex(path, code=("runs/record.py",))


def _content(path: Path) -> dict[str, Any]:
    return vars(Record.read(path))
