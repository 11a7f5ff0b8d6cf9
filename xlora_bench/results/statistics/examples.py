"""Two methods on the same examples: what can be said from stored predictions, run by run and over seeds.

`examples` is always one set of n labelled examples, in one order; `first` and `second` hold the predictions of two
methods, one row per shared seed.
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar

from xlora_bench.results.statistics.intervals import LEVEL, Interval
from xlora_bench.results.statistics.resampled import draws, weighted_score

RESAMPLES = 1000


@dataclass(frozen=True, kw_only=True)
class ByExample:
    """A difference of a metric, mean over seeds.

    `these_runs` resamples the examples and keeps the runs: other examples, these trained models.
    `seeds_and_examples` lets both vary: other examples and other seeds; None for one seed. `p` is its two-sided
    p-value.
    """

    these_runs: Interval
    seeds_and_examples: Interval | None
    p: float | None


def mcnemar_test(first: np.ndarray, second: np.ndarray, labels: np.ndarray) -> float:
    """Return the exact McNemar p-value (`statsmodels`) of two runs' class predictions (n,) being equally often right.

    Raises:
        ValueError: if the three are not of one shape (n,) with n >= 1.
    """

    _check(np.atleast_2d(first), np.atleast_2d(second), labels)
    right, other = np.asarray(first) == labels, np.asarray(second) == labels
    table = [[np.sum(a & b) for b in (other, ~other)] for a in (right, ~right)]
    return float(mcnemar(table, exact=True).pvalue)


def mcnemar_over_seeds(first: np.ndarray, second: np.ndarray, labels: np.ndarray) -> float:
    """Return one p-value for McNemar tests of S pairs of runs, (S, n) each: twice their median, at most 1.

    Valid however the S tests depend on each other, as they do by sharing examples (Rüger 1978; Vovk and Wang
    2020). For one pair it is its p-value. It speaks of these trained runs, not of other seeds.

    Raises:
        ValueError: as `mcnemar_test`.
    """
    _check(first, second, labels)
    p_values = [mcnemar_test(a, b, labels) for a, b in zip(first, second, strict=True)]
    return p_values[0] if len(p_values) == 1 else min(1.0, 2 * float(np.median(p_values)))


def resampled_scores(
    metric: str, runs: np.ndarray, labels: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0
) -> np.ndarray:
    """Return `metric` (R, 1 + resamples) of R runs' predictions (R, n): as measured, then on resampled examples.

    All runs are scored on the same resamples, so differences between columns of two results are paired.

    Raises:
        ValueError: if shapes differ, or the metric is not known.
    """
    _check(runs, runs, labels)
    blocks = [np.ones((1, len(labels))), *draws(len(labels), resamples=resamples, seed=seed)]
    return np.stack([np.concatenate([weighted_score(metric, run, labels, block) for block in blocks]) for run in runs])


def compare_by_example(first: np.ndarray, second: np.ndarray, *, examples: int, level: float = LEVEL) -> ByExample:
    """Return the intervals of first minus second from their `resampled_scores`, (S, 1 + B) each, paired by seed.

    `these_runs` is the percentile interval of the mean over seeds. `seeds_and_examples` treats seeds and examples
    as crossed: variance = s^2 / S of the seeds' differences + the mean covariance, over resampled examples, of the
    differences of two different seeds (what examples add whatever the seed; what belongs to a seed and an example
    together is in s^2 already); t with Satterthwaite's degrees of freedom between S - 1 and n - 1.

    Raises:
        ValueError: if the shapes differ or there are no resamples.
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
        both = stats.t.interval(level, freedom, loc=estimate, scale=variance**0.5)
        p = 2 * float(stats.t.sf(abs(estimate) / variance**0.5, freedom))
    crossed = Interval(
        estimate=estimate, low=float(both[0]), high=float(both[1]), n=seeds, method="seeds x examples", level=level
    )
    return ByExample(these_runs=these, seeds_and_examples=crossed, p=p)


def _check(first: np.ndarray, second: np.ndarray, labels: np.ndarray) -> None:
    shapes = np.shape(first), np.shape(second)
    if shapes[0] != shapes[1] or np.shape(labels) != shapes[0][1:] or not np.size(labels):
        raise ValueError(
            f"predictions of shapes {shapes[0]} and {shapes[1]} for labels of shape {np.shape(labels)}: "
            "both runs must have predicted the same examples"
        )
