"""The runs of a table in one small file (`xlora-bench archive`).

It holds of each cell what `verify` needs to train it again and to compare: config, choices, hashes, code, versions,
machine, the metrics of every epoch, and digests of predictions and trained tensors; no paths and no data. Values that
cells share are written once.
"""

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from xlora_bench.results.reproduce.run_artifacts import Run, find_run, read_run
from xlora_bench.runs.config_hash import relevant
from xlora_bench.runs.record import Record
from xlora_bench.system.io import write_atomically

log = logging.getLogger(__name__)

VERSION = 1
SHARED = ("choices", "code", "versions", "machine", "hashes", "parameters", "ranks")
"""Parts of a record that many cells have in common, besides those of their configs."""


def runs_of_report(report: Path) -> list[Run]:
    """Return the recorded cells of a report, in its order, and the cells that they start from.

    Raises:
        ValueError: if the folder is no report, or a cell's record is gone.
    """
    table = report / "cells.csv"
    if not table.is_file():
        raise ValueError(f"`{report}` is no folder of a report: it has no cells.csv")
    cells = pd.read_csv(table, usecols=["cell"], dtype=str)["cell"].dropna().unique()
    return with_parents([str(cell) for cell in cells], results_dir=report.resolve().parents[1])


def with_parents(cells: Sequence[str], *, results_dir: Path) -> list[Run]:
    """Return the runs of `cells` in a results folder, and of those that they start from, behind them."""
    runs: dict[str, Run] = {}
    wanted = list(cells)
    for cell in wanted:  # grows: a parent is appended
        if cell not in runs:
            runs[cell] = find_run(cell, results_dir=results_dir)
            parent = runs[cell].record.hashes.get("parent")
            wanted += [parent] if parent else []
    return list(runs.values())


def write_summary(runs: Iterable[Run], path: Path) -> None:
    """Write the summary of `runs` to `path`."""
    values: dict[str, int] = {}
    cells = [packed(run, values) for run in runs]
    lines = ",\n".join(json.dumps(cell, separators=(",", ":")) for cell in cells)
    shared = ",\n".join(values)
    text = f'{{"version": {VERSION},\n"values": [\n{shared}\n],\n"cells": [\n{lines}\n]}}\n'
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text)


def packed(run: Run, values: dict[str, int]) -> dict[str, Any]:
    """Return a run for the file; shared parts are numbers of places in `values`."""

    def place(value: Any) -> int:
        return values.setdefault(json.dumps(value, sort_keys=True, separators=(",", ":")), len(values))

    content = run.record.as_json()
    if Path(str(content["config"].get("model", {}).get("name", ""))).is_absolute():
        log.warning("cell %s has its model in a folder of this machine: nobody else can verify it", run.record.cell)
    content["config"] = {key: place(value) for key, value in relevant(content["config"]).items()}
    for key in SHARED:
        content[key] = place(content[key])
    history = content["metrics"].get("history", [])
    content["metrics"] |= {
        when: history.index(content["metrics"][when]) for when in ("best", "last") if content["metrics"].get(when)
    }
    return {**content, "digests": dict(run.digests)}


def read_summary(path: Path) -> dict[str, Run]:
    """Return the runs in a summary, by cell.

    Raises:
        ValueError: if the file is no summary.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["version"] != VERSION:
            raise ValueError(f"version {content['version']}, not {VERSION}")
        runs = [unpacked(cell, content["values"]) for cell in content["cells"]]
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise ValueError(f"{path} is no summary of records: {type(error).__name__}: {error}") from error
    return {run.record.cell: run for run in runs}


def unpacked(cell: Mapping[str, Any], values: Sequence[Any]) -> Run:
    """Return the run that `packed` made smaller."""
    content = dict(cell)
    digests = content.pop("digests")
    content["config"] = {key: values[place] for key, place in content["config"].items()}
    for key in SHARED:
        content[key] = values[content[key]]
    history = content["metrics"].get("history", [])
    content["metrics"] = {
        key: history[value] if key in ("best", "last") else value for key, value in content["metrics"].items()
    }
    return Run(record=Record.from_json(content), folder=None, recorded_digests=digests)


def find_recorded(said: str, *, place: Path) -> Run:
    """Return the run that a folder or a record file names, or an id in the results folder or summary `place`.

    Raises:
        ValueError: if there is none.
    """
    if not place.is_file() or Path(said).exists():
        return find_run(said, results_dir=place)
    runs = read_summary(place)
    found = [cell for cell in runs if cell.startswith(said)]
    if len(found) != 1:
        raise ValueError(f"{said} names {len(found)} of the {len(runs)} cells in {place}; it must name one")
    return runs[found[0]]


def recorded_in(place: Path) -> dict[str, Run]:
    """Return the recorded cells of a report folder, a results folder or a summary, by their ids.

    Raises:
        ValueError: if `place` is none of these.
    """
    if place.is_file():
        return read_summary(place)
    if (place / "cells.csv").is_file():
        return {run.record.cell: run for run in runs_of_report(place)}
    if (place / "records.json").is_file():
        return read_summary(place / "records.json")
    if not (place / "cells").is_dir():
        raise ValueError(
            f"`{place}` is neither a folder of a report (with cells.csv), nor a results folder (with cells), nor a "
            "summary (records.json)"
        )
    runs = [read_run(path.parent) for path in sorted((place / "cells").glob("*/record.json"))]
    return {run.record.cell: run for run in runs}
