"""Summary of groups of runs that differ only in their seed."""

from collections.abc import Sequence

import pandas as pd


def summarise(frame: pd.DataFrame, by: Sequence[str], value: str) -> pd.DataFrame:
    """Return `mean`, `std`, `n`, `n_collapsed`, `n_failed` and `n_missing` of `value`, one row per group of `by`.

    `mean` and `std` (ddof 1, NaN for one run) are over the `n` completed runs with a value. Collapsed runs are counted,
    not averaged, so report `mean` together with `n_collapsed`.
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
