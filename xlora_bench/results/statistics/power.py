"""Power: the difference that n seeds can detect, and the number of seeds that a difference needs.

For the two-sided paired t-test; effect size = mean / standard deviation of the differences. The standard deviation of a
few seeds is itself uncertain, so the results are orders of magnitude.
"""

import math
from functools import cache, lru_cache

import numpy as np
from scipy import optimize, special
from statsmodels.stats.proportion import proportion_confint

from xlora_bench.results.statistics.pairs import finite
from xlora_bench.results.statistics.permutation_test import ALPHA, pairs_needed

POWER = 0.8
MANY = 1000
"""Largest number of seeds that is considered."""


def detectable_difference(
    differences: object, *, alpha: float = ALPHA, power: float = POWER, comparisons: int = 1
) -> float:
    """Return the true difference that a test with n = len(`differences`) seeds finds with probability `power`.

    It is the effect size with that power (minimum detectable effect) x the standard deviation of `differences`, at
    level `alpha / comparisons` (Bonferroni). inf if n is below `pairs_needed`: an exact test cannot reject.

    Raises:
        ValueError: if there are fewer than two differences, or one is not finite.
    """
    array = finite(differences, of="differences", at_least=2)
    deviation = float(array.std(ddof=1))
    if len(array) < pairs_needed(alpha=alpha):
        return math.inf
    if np.ptp(array) == 0:
        return 0.0
    return deviation * _detectable_effect(len(array), alpha / comparisons, power)


@cache
def _detectable_effect(n: int, alpha: float, power: float) -> float:
    """Return the effect size with that power; all methods of a column have the same n, and its search takes 10 ms."""

    def missing(effect: float) -> float:
        return _power(effect, n, alpha) - power

    most = 1.0
    while missing(most) < 0:
        most *= 2
    return float(optimize.brentq(missing, 0.0, most))


def seeds_to_separate(
    differences: object, *, alpha: float = ALPHA, power: float = POWER, comparisons: int = 1
) -> float:
    """Return the smallest number of seeds with power >= `power` for the observed effect size; inf beyond `MANY`.

    The level is `alpha / comparisons` (Bonferroni). At least `pairs_needed`, where an exact test can reach `alpha`.

    Raises:
        ValueError: if there are fewer than two differences, or one is not finite.
    """
    array = finite(differences, of="differences", at_least=2)
    least = pairs_needed(alpha=alpha)
    mean, deviation = abs(float(array.mean())), float(array.std(ddof=1))
    if np.ptp(array) == 0:
        return float(least) if mean else math.inf

    def enough(n: int) -> bool:
        return _power(mean / deviation, n, alpha / comparisons) >= power

    low = high = least
    while high < MANY and not enough(high):
        low, high = high + 1, min(2 * high, MANY)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return float(high) if enough(high) else math.inf


def failure_interval(failed: int, runs: int, *, level: float = 0.95) -> tuple[float, float]:
    """Return Wilson's interval of the probability that a run fails or collapses, given `failed` of `runs`.

    Raises:
        ValueError: if there is no run or `failed` is not between 0 and `runs`.
    """
    if runs < 1 or not 0 <= failed <= runs:
        raise ValueError(f"{failed} failed of {runs} runs: both must be counts of runs, at least one run")
    low, high = proportion_confint(failed, runs, alpha=1 - level, method="wilson")
    return float(low), float(high)


def _power(effect: float, n: int, alpha: float) -> float:
    """Return the power of the paired t-test; where the noncentral t is NaN, by numerical mean over chi-squared.

    With `t` the `1 - alpha / 2` quantile of Student's t: `1 - F(t) + F(-t)`, F the distribution function of the
    noncentral t, both with n - 1 degrees of freedom, noncentrality `effect * sqrt(n)`. The formula is that of
    `statsmodels.stats.power.TTestPower`; the functions of `scipy.special` are 20 times as fast.
    """
    freedom, shift = n - 1, effect * math.sqrt(n)
    bound = float(special.stdtrit(freedom, 1 - alpha / 2))
    upper, lower = (float(special.nctdtr(freedom, shift, end)) for end in (bound, -bound))
    if not math.isnan(upper) and not math.isnan(lower):
        return 1 - upper + lower
    bounds = bound * _chi_quantiles(freedom) / math.sqrt(freedom)
    return float((special.ndtr(shift - bounds) + special.ndtr(-bounds - shift)).mean())


@lru_cache(maxsize=64)  # of 80 kB
def _chi_quantiles(freedom: int) -> np.ndarray:
    quantiles: np.ndarray = np.sqrt(special.chdtri(freedom, 1 - (np.arange(10_000) + 0.5) / 10_000))
    return quantiles
