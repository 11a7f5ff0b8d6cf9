"""Comparison of two methods on the same n examples, from stored predictions.

`first` and `second` are the predictions of the two methods, in the same order of examples, one row per shared seed.
"""

import itertools
from dataclasses import dataclass

import numpy as np
from scipy import special

from xlora_bench.results.statistics.intervals import LEVEL, UNBOUNDED, Bounds, Interval, cut, of_difference, t_interval
from xlora_bench.results.statistics.resampled import draws, weighted_scores

RESAMPLES = 1000


@dataclass(frozen=True, kw_only=True)
class ByExample:
    """Intervals of the difference of a metric, mean over seeds.

    `these_runs` accounts for other examples with the same trained models. `seeds_and_examples` accounts for other
    examples and other seeds (None for one seed); `p` is its two-sided p-value.
    """

    these_runs: Interval
    seeds_and_examples: Interval | None
    p: float | None


def mcnemar_test(first: np.ndarray, second: np.ndarray, labels: np.ndarray) -> float:
    """Return the p-value of the exact McNemar test on class predictions (n,) of two runs.

    Null hypothesis: both runs have the same accuracy. With b and c examples on which only the first and only the second
    is right: `min(1, 2 P(X <= min(b, c)))`, X binomial with b + c draws of probability 1/2.

    Raises:
        ValueError: if the three are not of one shape (n,) with n >= 1.
    """
    return mcnemar_over_seeds(np.atleast_2d(first), np.atleast_2d(second), labels)


def mcnemar_over_seeds(first: np.ndarray, second: np.ndarray, labels: np.ndarray) -> float:
    """Combine the McNemar p-values of S pairs of runs, (S, n) each: `min(1, 2 median(p_1, ..., p_S))`; S = 1: `p_1`.

    Valid under any dependence of the S tests, which share their examples (Rüger 1978; Vovk and Wang 2020). It is a
    statement about these trained runs, not about other seeds.

    Raises:
        ValueError: as `mcnemar_test`.
    """
    _check(first, second, labels)
    right, other = first == labels, second == labels
    one, two = (right & ~other).sum(axis=1), (other & ~right).sum(axis=1)
    p_values = np.minimum(1.0, 2 * special.bdtr(np.minimum(one, two), one + two, 0.5))
    return float(p_values[0]) if len(p_values) == 1 else min(1.0, 2 * float(np.median(p_values)))


def resampled_scores(
    metric: str, runs: np.ndarray, labels: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0
) -> np.ndarray:
    """Return `metric` (R, 1 + resamples) of R runs with predictions (R, n): column 0 measured, the rest bootstrapped.

    The bootstrap draws n examples with replacement. All runs, and calls with equal `seed`, use the same resamples, so
    that their differences are paired.

    Raises:
        ValueError: if the shapes do not match, or the metric is unknown.
    """
    _check(runs, runs, labels)
    blocks = itertools.chain([np.ones((1, len(labels)))], draws(len(labels), resamples=resamples, seed=seed))
    return np.concatenate([weighted_scores(metric, runs, labels, block) for block in blocks], axis=1)


def compare_by_example(
    first: np.ndarray, second: np.ndarray, *, examples: int, level: float = LEVEL, bounds: Bounds = UNBOUNDED
) -> ByExample:
    """Return the intervals of `first - second` from their `resampled_scores`, (S, 1 + B) each, paired by seed.

    `these_runs`: percentile interval of the bootstrapped mean over seeds. `seeds_and_examples`: t-interval with crossed
    seeds and examples. Its variance is `v = v_s + v_e`. `v_s = s^2 / S`, with `s^2` the variance of the S measured
    differences. `v_e` is the mean covariance over resamples of the differences of two different seeds, at least 0. The
    seed-example interaction is part of `s^2`. Degrees of freedom by Satterthwaite:
    `v^2 / (v_s^2 / (S - 1) + v_e^2 / (n - 1))`, n = `examples`. Its part that no difference of two scores within
    `bounds` can have is cut off.

    Raises:
        ValueError: if the shapes differ, or there are fewer than two resamples.
    """
    if first.shape != second.shape or first.ndim != 2 or first.shape[1] < 3:
        raise ValueError(f"scores of shapes {first.shape} and {second.shape} must be equal, (seeds, 1 + resamples)")
    differences = first - second
    observed, resampled = differences[:, 0], differences[:, 1:]
    estimate, seeds = float(observed.mean()), len(observed)
    low, high = np.quantile(resampled.mean(axis=0), [(1 - level) / 2, (1 + level) / 2])
    these = Interval(
        estimate=estimate, low=float(low), high=float(high), n=examples, method="paired bootstrap", level=level
    )
    if seeds == 1:
        return ByExample(these_runs=these, seeds_and_examples=None, p=None)
    by_seed = float(observed.var(ddof=1)) / seeds
    covariance = np.cov(resampled)
    shared = max(0.0, float((covariance.sum() - np.trace(covariance)) / (seeds * (seeds - 1))))
    variance = by_seed + shared
    if variance <= 0:
        both, p = (estimate, estimate), float(estimate == 0)
    else:
        freedom = variance**2 / (by_seed**2 / (seeds - 1) + shared**2 / max(examples - 1, 1))
        both = t_interval(estimate, variance**0.5, freedom=freedom, level=level)
        p = 2 * float(special.stdtr(freedom, -abs(estimate) / variance**0.5))
    low, high = cut(both, estimate, of_difference(bounds))
    crossed = Interval(estimate=estimate, low=low, high=high, n=seeds, method="seeds x examples", level=level)
    return ByExample(these_runs=these, seeds_and_examples=crossed, p=p)


def _check(first: np.ndarray, second: np.ndarray, labels: np.ndarray) -> None:
    shapes = np.shape(first), np.shape(second)
    if shapes[0] != shapes[1] or np.shape(labels) != shapes[0][1:] or not np.size(labels):
        raise ValueError(
            f"predictions of shapes {shapes[0]} and {shapes[1]} for labels of shape {np.shape(labels)}: "
            "both runs must have predicted the same examples"
        )
