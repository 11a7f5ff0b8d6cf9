"""Pivot axes of a table: the keys that differ between runs, except the seed."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from xlora_bench.results.frame.collect import OUTCOME

METHOD = ("adapter", "init_scheme", "targets", "optimizer", "scheduler")
"""Config groups that define a method (rows of a table); other keys, such as rank, model and task, are columns."""
FIRST = ("adapter", "init_scheme", "targets", "model", "task", "budget", "tuning", "adapter.rank")
"""Keys tried first as axes; a later key that follows from them (alpha tied to the rank) becomes no axis."""

Key = tuple[Any, ...]


@dataclass(frozen=True, kw_only=True)
class PivotAxes:
    """The frame columns that form the row keys and the column keys of a table."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """All axes, rows first."""
        return [*self.rows, *self.columns]


def varying(frame: pd.DataFrame, *, given: Sequence[str] = ()) -> list[str]:
    """Return the keys that differ between runs and are not a function of the axes `given` or found before."""
    axes = [*given]
    for name in _candidates(frame):
        if name not in axes and frame[name].nunique(dropna=False) > 1 and not _follows(frame, name, axes):
            axes.append(name)
    return axes[len(given) :]


def find_pivot_axes(frame: pd.DataFrame) -> PivotAxes:
    """Return the axes of a table: the varying keys; if no method key varies, the rows are `adapter`."""
    names = varying(frame)
    rows = [name for name in names if _is_method(name)]
    columns = [name for name in names if not _is_method(name)]
    columns.sort(key=lambda name: name == "adapter.rank")
    return PivotAxes(rows=tuple(rows or ["adapter"]), columns=tuple(columns))


def keys(frame: pd.DataFrame, names: Sequence[str]) -> list[Key]:
    """Return, for each row, the tuple of its values in columns `names`; NaN becomes None so that keys compare equal."""
    values = [frame[name].tolist() if name in frame else [None] * len(frame) for name in names]
    return [tuple(None if is_missing(value) else value for value in key) for key in zip(*values, strict=True)] or [
        () for _ in range(len(frame))
    ]


def ordered(group_keys: Iterable[Key]) -> list[Key]:
    """Return the distinct keys, sorted lexicographically: numbers ascending, then other values by first appearance."""
    distinct = list(dict.fromkeys(group_keys))
    ranks = [_ranks(dict.fromkeys(axis)) for axis in zip(*distinct, strict=True)]
    return sorted(distinct, key=lambda key: [rank[value] for rank, value in zip(ranks, key, strict=True)])


def _candidates(frame: pd.DataFrame) -> list[str]:
    request = [name for name in frame.columns if name not in OUTCOME and "/" not in name]
    first = [name for name in FIRST if name in request]
    choices = [name for name in request if "." not in name]
    return list(dict.fromkeys([*first, *choices, *request]))


def _follows(frame: pd.DataFrame, name: str, axes: list[str]) -> bool:
    """Whether `name` has one value in each group of runs with equal values of `axes`."""
    if not axes:
        return False
    return bool((frame.groupby(axes, dropna=False, sort=False)[name].nunique(dropna=False) <= 1).all())


def _is_method(name: str) -> bool:
    return name.partition(".")[0] in METHOD and name != "adapter.rank"


def _ranks(values: Iterable[Any]) -> dict[Any, int]:
    numbers = sorted(value for value in values if isinstance(value, int | float))
    others = [value for value in values if not isinstance(value, int | float)]
    return {value: rank for rank, value in enumerate([*numbers, *others])}


def is_missing(value: Any) -> bool:
    """Whether a value of a frame is None or NaN."""
    return value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value))
