"""Runs of a page: a column per key that differs between runs, one value for the others, curves, ranks and factors."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from xlora_bench.results.figures.factors import COLUMNS, FACTORS, MOST_RUNS, means
from xlora_bench.results.frame.pivot_axes import is_missing
from xlora_bench.runs.read_records import read_records
from xlora_bench.runs.record import Record, json_value, run_folder

DIGITS = 6
"""Significant digits of the numbers of a page; records and CSV files have all."""
POINTS = 2_000_000
"""Numbers in all curves of a page together; longer curves are thinned."""
LEAST_POINTS, MOST_POINTS = 5, 100
"""Numbers in one curve."""
FACTOR_POINTS = 30
SCALARS = (str, int, float, type(None))
LEFT_OUT = ("score_best", "score_last", "score_cross_split")


def run_table(frame: pd.DataFrame) -> dict[str, Any]:
    """Return `columns`, the names and values of what differs between runs, and `common`, what all runs have.

    A column of texts is `[names, indices]`, one of numbers a list. NaN becomes None, infinity a text.
    """
    common, columns = {}, {}
    for name in frame.columns:
        if name in LEFT_OUT:
            continue
        distinct, indices = _distinct(frame[name].tolist())
        if len(distinct) == 1 and name not in ("run_id", "status", "seed", "score") and len(frame) > 1:
            if distinct[0] is not None:
                common[str(name)] = distinct[0]
        elif all(isinstance(value, float | int) or value is None for value in distinct):
            columns[str(name)] = [distinct[index] for index in indices]
        else:
            columns[str(name)] = [distinct, indices]
    return {"columns": columns, "common": common, "count": len(frame)}


def details(frame: pd.DataFrame, results_dir: Path | None) -> dict[str, Any]:
    """Return what only the records of runs have: `curves` by metric, `ranks` by module, `machines`, and `factors`.

    `results_dir` is a results folder or an archive.

    `curves` maps a metric to a list of `[epochs, values]` per run, None for a run without it. `ranks` and `machines`
    are `[distinct values, index per run]`. `notes` says what was thinned or left out. Runs without a file have None.
    """
    read = _records(results_dir, map(str, frame["run_id"]))
    records = [read.get(str(run_id)) for run_id in frame["run_id"]]
    histories = [
        [entry for entry in json_value(record.metrics.get("history", [])) if entry] if record else []
        for record in records
    ]
    names = dict.fromkeys(name for history in histories for entry in history for name in entry)
    metrics = [name for name in names if name not in ("epoch", "collapsed")]
    most = min(MOST_POINTS, max(LEAST_POINTS, POINTS // max(1, 2 * len(records) * len(metrics))))
    notes = [f"Numbers on this page have {DIGITS} significant digits; the records have all."]
    if any(len(history) > most for history in histories):
        notes.append(f"Of each learning curve {most} evaluations, evenly spaced, are on this page.")
    factors, note = _factors(frame, results_dir)
    return {
        "curves": {name: [_curve(history, name, most) for history in histories] for name in metrics},
        "ranks": _distinct([(record and record.ranks) or None for record in records]),
        "machines": _distinct([(record and record.machine) or None for record in records]),
        "factors": factors,
        "notes": [*notes, *note],
    }


def plain(value: Any) -> Any:
    """Return a value of a frame for JSON: rounded numbers, None for NaN, texts for what JSON has no type for."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if is_missing(value) or value is pd.NaT:
        return None
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else str(value)
    return value if isinstance(value, bool | int | str) else str(value)


def thinned(values: Sequence[Any], most: int) -> list[Any]:
    """Return at most `most` of the values, evenly spaced, the first and the last among them."""
    if len(values) <= most:
        return list(values)
    return [values[index] for index in np.linspace(0, len(values) - 1, most).round().astype(int)]


def _records(results_dir: Path | None, run_ids: Iterable[str]) -> dict[str, Record]:
    """Return the records of a results folder or an archive that can be read."""
    if results_dir is None:
        return {}
    if results_dir.is_file():
        from xlora_bench.results.reproduce.records_archive import read_archive  # noqa: PLC0415 - slow to import

        return {run_id: run.record for run_id, run in read_archive(results_dir).items()}
    records = read_records(results_dir, run_ids)
    return {run_id: record for run_id, record in records.items() if isinstance(record, Record)}


def _curve(history: Sequence[Mapping[str, Any]], name: str, most: int) -> list[list[Any]] | None:
    entries = thinned([entry for entry in history if name in entry and "epoch" in entry], most)
    return [[plain(entry[key]) for entry in entries] for key in ("epoch", name)] if entries else None


def _distinct(values: Sequence[Any]) -> list[Any]:
    """Return the distinct `plain` values, by their JSON text, and the index of each value among them."""
    by_value: dict[Any, int] = {}
    by_text: dict[str, int] = {}
    distinct: list[Any] = []
    indices: list[int] = []
    for value in values:
        key = (type(value), value if isinstance(value, SCALARS) else id(value))
        index = by_value.get(key)
        if index is None:
            shown = plain(value)
            index = by_text.setdefault(json.dumps(shown), len(distinct))
            if index == len(distinct):
                distinct.append(shown)
            by_value[key] = index
        indices.append(index)
    return [distinct, indices]


def _factors(frame: pd.DataFrame, results_dir: Path | None) -> tuple[list[Any] | None, list[str]]:
    """Return `[steps, {series: values}]` per run (None without a monitor), and a note if they are left out."""
    if results_dir is None:
        return None, []
    if len(frame) > MOST_RUNS:
        return None, [f"The factor monitor is left out: there are more than {MOST_RUNS} runs."]
    series = [f"{what}_{factor}" for what in COLUMNS for factor in FACTORS]
    result: list[Any] = []
    for run_id in frame["run_id"]:
        try:
            rows = means(run_folder(results_dir, str(run_id)) / "factors.csv")
        except (OSError, ValueError):
            rows = pd.DataFrame()
        if rows.empty:
            result.append(None)
            continue
        rows = rows.iloc[thinned(range(len(rows)), FACTOR_POINTS)]
        values = {name: [plain(value) for value in rows[name]] for name in series}
        result.append([[int(step) for step in rows["step"]], values])
    return (result, []) if any(result) else (None, [])
