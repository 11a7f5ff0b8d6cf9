"""Aggregation over seeds: centre, spread, and confidence interval of the centre."""

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

from xlora_bench.results.protocols.protocol import Aggregation
from xlora_bench.results.statistics import Interval, mean_interval
from xlora_bench.results.statistics.intervals import LEVEL, UNBOUNDED, Bounds

SPREADS: dict[str, tuple[str, str]] = {
    "mean": ("std", "mean ± standard deviation (ddof 1)"),
    "median": ("half_iqr", "median ± half the distance between the quartiles"),
}
"""By aggregation: the name of its spread, and the description for the notes."""


def center(values: Sequence[float], aggregation: Aggregation) -> float:
    """Return the mean or the median of `values`; NaN if empty."""
    if not len(values):
        return math.nan
    return float(np.mean(values) if aggregation == "mean" else np.median(values))


def spread(values: Sequence[float], aggregation: Aggregation) -> float:
    """Return the standard deviation (ddof 1) for the mean, `(q75 - q25) / 2` for the median; NaN for fewer than two."""
    if len(values) < 2:
        return math.nan
    if aggregation == "mean":
        return float(np.std(values, ddof=1))
    low, high = np.quantile(values, [0.25, 0.75])
    return float(high - low) / 2


def interval(values: Sequence[float], aggregation: Aggregation, *, bounds: Bounds = UNBOUNDED) -> Interval | None:
    """Return the interval of the mean (Student's t) or of the median (order statistics); None for fewer than two runs.

    Mean: `mean ± t_{n-1} std / sqrt(n)` at 95 %, cut at the `bounds` of the values. Median: for n >= 6 the
    order-statistic interval at 95 %; for n < 6 the range `[min, max]`, which contains the median with probability
    `1 - 2^(1 - n)` (its `level`).
    """
    n = len(values)
    if n < 2:
        return None
    if aggregation == "mean":
        return mean_interval(values, bounds=bounds)
    low, high, level = min(values), max(values), 1 - 2.0 ** (1 - n)
    if n >= 6:
        ends, level = stats.quantile_test(values, q=0, p=0.5).confidence_interval(LEVEL), LEVEL
        low, high = float(ends.low), float(ends.high)
    return Interval(estimate=center(values, "median"), low=low, high=high, n=n, method="order statistics", level=level)
