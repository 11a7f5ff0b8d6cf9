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
    index, checked = _index(results_dir.absolute() / INDEX / "records.json")
    records: dict[str, Record | ValueError] = {}
    for run_id in run_ids:
        path = run_folder(results_dir, run_id) / RECORD
        if not path.exists():
            continue
        try:
            content = index.content(run_id, path, _content)
            if checked.get(run_id, (None,))[0] is not content:
                checked[run_id] = (content, Record(**content))
            record = checked[run_id][1]
            if record.run_id != run_id and path.parent.parent.name == "runs":
                raise ValueError(f"record {path} is of the run {record.run_id} in {INDEX}; delete that folder")
            records[run_id] = record
        except FileNotFoundError:  # it was replaced or deleted just now
            continue
        except (TypeError, ValueError) as error:
            records[run_id] = ValueError(str(error))
    index.write(lambda run_id: run_folder(results_dir, run_id).is_dir())
    return records


@lru_cache(maxsize=2)
def _index(path: Path) -> tuple[FileIndex, dict[str, tuple[dict[str, Any], Record]]]:
    """Return the index, and by run the content that was checked before, with its record."""
    return FileIndex(path, code=("runs/record.py",)), {}


def _content(path: Path) -> dict[str, Any]:
    return vars(Record.read(path))
