"""What may be said about a group of runs that differ only in their seed."""

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

import pandas as pd

Name = TypeVar("Name", bound=Hashable)


def summarise(frame: pd.DataFrame, by: Sequence[str], value: str) -> pd.DataFrame:
    """Return `mean`, `std`, `n`, `n_collapsed`, `n_failed` and `n_missing` of `value`, one row per group.

    The std has ddof = 1 and is NaN for one run. Mean and spread are those of the `n` runs that are done; a
    collapsed run is counted beside them and never averaged in, so a mean is only honest together with its
    `n_collapsed`.
    """
    done = (frame["status"] == "done") & frame[value].notna()
    counted = frame.assign(
        **{value: pd.to_numeric(frame[value]).where(done)},
        n_collapsed=frame["status"] == "collapsed",
        n_failed=frame["status"] == "failed",
        n_missing=frame["status"] == "missing",
    )
    groups = counted.groupby(list(by), dropna=False, sort=False)
    return groups.agg(
        mean=(value, "mean"),
        std=(value, "std"),
        n=(value, "count"),
        n_collapsed=("n_collapsed", "sum"),
        n_failed=("n_failed", "sum"),
        n_missing=("n_missing", "sum"),
    ).reset_index()


def separable_best(groups: Mapping[Name, tuple[float, float]]) -> Name | None:
    """Return the best of `groups` (name -> mean, std), or None if it does not stand out.

    It stands out if its mean minus the next best mean exceeds the larger of their two stds. A group of one
    run has no std: it neither stands out nor can anything stand out against it.
    """
    ranked = sorted((name for name in groups if not math.isnan(groups[name][0])), key=lambda name: -groups[name][0])
    if len(ranked) < 2:
        return None
    (first, first_std), (second, second_std) = groups[ranked[0]], groups[ranked[1]]
    if math.isnan(first_std) or math.isnan(second_std):
        return None
    return ranked[0] if first - second > max(first_std, second_std) else None
