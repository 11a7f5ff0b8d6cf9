"""Which keys span a table: whatever differs between the runs, besides the seed."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from xlora_bench.results.frame.collect import OUTCOME

METHOD = ("adapter", "init_scheme", "targets", "optimizer", "scheduler")
"""Config groups that make a method, the rows of a table; rank, model, task and budget are its columns."""
FIRST = ("adapter", "init_scheme", "targets", "model", "task", "budget", "tuning", "adapter.rank")
"""Axes that win over others which say the same (alpha tied to the rank is no axis of its own)."""

Key = tuple[Any, ...]


@dataclass(frozen=True, kw_only=True)
class PivotAxes:
    """The names of the columns of a frame that span the rows and the columns of a table."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """All axes, rows first."""
        return [*self.rows, *self.columns]


def varying(frame: pd.DataFrame, *, given: Sequence[str] = ()) -> list[str]:
    """Return what differs between runs and does not follow from axes `given` or found before."""
    result = [*given]
    for name in _candidates(frame):
        if name not in result and frame[name].nunique(dropna=False) > 1 and not _follows(frame, name, result):
            result.append(name)
    return result[len(given) :]


def find_pivot_axes(frame: pd.DataFrame) -> PivotAxes:
    """Return the axes of the table of a sweep; without a varying method its rows are the adapter."""
    names = varying(frame)
    rows = [name for name in names if _is_method(name)]
    columns = [name for name in names if not _is_method(name)]
    columns.sort(key=lambda name: name == "adapter.rank")
    return PivotAxes(rows=tuple(rows or ["adapter"]), columns=tuple(columns))


def keys(frame: pd.DataFrame, names: Sequence[str]) -> list[Key]:
    """Return the values of the columns `names`, row by row; NaN is None, so that equal keys are equal."""
    values = [frame[name] if name in frame else pd.Series([None] * len(frame)) for name in names]
    return [tuple(None if is_missing(value) else value for value in key) for key in zip(*values, strict=True)] or [
        () for _ in range(len(frame))
    ]


def ordered(result: Iterable[Key]) -> list[Key]:
    """Return the distinct keys: numbers ascending, names as they first appear, the first axis slowest."""
    distinct = list(dict.fromkeys(result))
    ranks = [_ranks(dict.fromkeys(axis)) for axis in zip(*distinct, strict=True)]
    return sorted(distinct, key=lambda key: [rank[value] for rank, value in zip(ranks, key, strict=True)])


def _candidates(frame: pd.DataFrame) -> list[str]:
    request = [name for name in frame.columns if name not in OUTCOME and "/" not in name]
    first = [name for name in FIRST if name in request]
    choices = [name for name in request if "." not in name]
    return list(dict.fromkeys([*first, *choices, *request]))


def _follows(frame: pd.DataFrame, name: str, result: list[str]) -> bool:
    """Whether the value of `name` is the same in all runs that agree on `result`."""
    if not result:
        return False
    return bool((frame.groupby(result, dropna=False, sort=False)[name].nunique(dropna=False) <= 1).all())


def _is_method(name: str) -> bool:
    return name.partition(".")[0] in METHOD and name != "adapter.rank"


def _ranks(values: Iterable[Any]) -> dict[Any, int]:
    numbers = sorted(value for value in values if isinstance(value, int | float))
    others = [value for value in values if not isinstance(value, int | float)]
    return {value: rank for rank, value in enumerate([*numbers, *others])}


def is_missing(value: Any) -> bool:
    """Whether a run of a frame holds nothing."""
    return value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value))
