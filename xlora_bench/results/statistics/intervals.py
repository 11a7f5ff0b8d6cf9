"""Confidence intervals of a mean over seeds, and of a mean difference of two methods paired by seed."""

import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from scipy import special, stats

from xlora_bench.data.task import RANGES
from xlora_bench.results.statistics.pairs import Scores, finite, paired

Method = Literal["t", "bca"]
LEVEL = 0.95
Bounds = tuple[float, float]
"""The lowest and the highest possible value."""
UNBOUNDED: Bounds = (-math.inf, math.inf)
BCA_FROM = 20
"""Number of seeds below which the BCa interval of a mean covers much less than its level."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """`estimate` and its interval `[low, high]` at confidence `level`, from `n` values by `method`."""

    estimate: float
    low: float
    high: float
    n: int
    method: str
    level: float = LEVEL

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


def bounds_of(metrics: Iterable[object]) -> Bounds:
    """Return the smallest interval that has every value of `metrics`; `UNBOUNDED` if none is given or one is yours."""
    ranges = [RANGES.get(str(name), UNBOUNDED) for name in metrics]
    return (min(low for low, _ in ranges), max(high for _, high in ranges)) if ranges else UNBOUNDED


def of_difference(bounds: Bounds) -> Bounds:
    """Return the bounds of the difference of two values within `bounds`."""
    return bounds[0] - bounds[1], bounds[1] - bounds[0]


def cut(ends: tuple[float, float], estimate: float, bounds: Bounds) -> tuple[float, float]:
    """Return an interval without its part outside `bounds`; it contains `estimate` even if that is outside.

    The true value is within `bounds`, so the shorter interval contains it exactly when the longer one does.
    """
    return max(float(ends[0]), min(bounds[0], estimate)), min(float(ends[1]), max(bounds[1], estimate))


def mean_interval(
    values: object,
    *,
    level: float = LEVEL,
    method: Method = "t",
    resamples: int = 9999,
    bounds: Bounds = UNBOUNDED,
) -> Interval:
    """Return the interval of the mean of n >= 2 independent runs; a single point if all values are equal.

    The part outside `bounds`, the range of the values, is cut off (see `cut`).

    `t` (default): `mean ± t_{n-1} s / sqrt(n)`, s with ddof 1. `bca`: bias-corrected and accelerated bootstrap
    (Efron 1987, `scipy.stats.bootstrap`, fixed seed), whose coverage is far below its level for fewer than `BCA_FROM`
    values (simulated: 83 % with five seeds, 93 % with twenty; `docs/statistics.md`).

    Raises:
        ValueError: if there are fewer than two values, one is not finite, or `level` or `method` is wrong.
    """
    array = finite(values, at_least=2)
    if not 0 < level < 1:
        raise ValueError(f"level (={level}) must lie between 0 and 1, such as 0.95")
    if method not in get_args(Method):
        raise ValueError(f"method (={method!r}) must be one of {', '.join(get_args(Method))}")
    mean = float(array.mean())
    if np.ptp(array) == 0:
        low, high = mean, mean
    elif method == "t":
        low, high = _t(array, level)
    else:
        low, high = _bca(array, level, resamples)
    low, high = cut((low, high), mean, bounds)
    return Interval(estimate=mean, low=low, high=high, n=len(array), method=method, level=level)


def difference_interval(
    first: Scores,
    second: Scores,
    *,
    level: float = LEVEL,
    method: Method = "t",
    resamples: int = 9999,
    bounds: Bounds = UNBOUNDED,
) -> Interval:
    """Return the `mean_interval` of `first - second` over the seeds that both have; `bounds` are those of a score.

    Raises:
        ValueError: as `paired` and `mean_interval`.
    """
    pairs = paired(first, second)
    within = of_difference(bounds)
    return mean_interval(pairs.differences, level=level, method=method, resamples=resamples, bounds=within)


def _t(array: np.ndarray, level: float) -> tuple[float, float]:
    mean, error = float(array.mean()), float(array.std(ddof=1)) / math.sqrt(len(array))
    return t_interval(mean, error, freedom=len(array) - 1, level=level)


def t_interval(mean: float, error: float, *, freedom: float, level: float) -> tuple[float, float]:
    """Return `mean ± t error`, with t the `(1 + level) / 2` quantile of Student's t with `freedom` degrees."""
    margin = float(special.stdtrit(freedom, (1 + level) / 2)) * error
    return mean - margin, mean + margin


def _bca(array: np.ndarray, level: float, resamples: int) -> tuple[float, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=RuntimeWarning)
        interval = stats.bootstrap(
            (array,),
            np.mean,
            n_resamples=resamples,
            confidence_level=level,
            method="BCa",
            vectorized=True,
            rng=np.random.default_rng(0),
        ).confidence_interval
    return float(interval.low), float(interval.high)
