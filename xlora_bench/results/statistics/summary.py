"""What may be said about a group of runs that differ only in their seed."""

from collections.abc import Sequence

import pandas as pd


def summarise(frame: pd.DataFrame, by: Sequence[str], value: str) -> pd.DataFrame:
    """Return `mean`, `std`, `n`, `n_collapsed`, `n_failed` and `n_missing` of `value`, one row per group.

    The std has ddof = 1 and is NaN for one run. Mean and spread are those of the `n` runs that are done; a
    collapsed run is counted beside them and never averaged in, so a mean is only honest together with its
    `n_collapsed`.
    """
    done = (frame["status"] == "completed") & frame[value].notna()
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
