"""Exact paired permutation tests over seeds: under the null hypothesis, the sign of each difference is random.

The p-value of n differences d is the share of the 2^n sign vectors s with |sum s_i d_i| >= |sum d_i| (Fisher 1935).
It is at least 2 / 2^n: five seeds cannot reach 0.05 (minimum 0.0625), six can (0.03125).
"""

import math
from functools import lru_cache

import numpy as np

from xlora_bench.results.statistics.pairs import finite

ALPHA = 0.05
EXACT_UP_TO = 14
"""Number of seeds up to which all sign vectors are enumerated; above it, `RANDOM` random ones are drawn."""
RANDOM = 20_000
_EQUAL = 1e-9


def sign_flip_test(differences: object) -> float:
    """Return the two-sided p-value of the sign-flip test; null hypothesis: the differences (n,) are symmetric around 0.

    Raises:
        ValueError: if there is no difference, or one is not finite.
    """
    array = finite(differences, of="differences")
    return float(westfall_young(array[:, None])[0])


def westfall_young(differences: np.ndarray) -> np.ndarray:
    """Return adjusted p-values (m,) of m comparisons with one reference, from their differences (n seeds, m).

    Westfall and Young's step-down max-T. One sign vector s flips all comparisons of a seed together;
    `t_j(s) = |sum_i s_i d_ij| / ||d_j||`. With the comparisons sorted by falling observed t, the p-value of the j-th is
    the share of s with `max_{k >= j} t_k(s) >= t_j`, made non-decreasing in j. Controls the family-wise error rate.
    The smallest p is 2 / 2^n for any m, unlike Holm's. NaN: no pair at that seed.

    Raises:
        ValueError: if a column has no pair or a value is infinite.
    """
    known = np.where(np.isnan(differences), 0.0, differences)
    if known.ndim != 2 or not len(known) or np.isnan(differences).all(axis=0).any() or np.isinf(known).any():
        raise ValueError("each comparison needs at least one pair of finite scores; run both methods with one seed")
    length = np.sqrt((known**2).sum(axis=0))
    units = known / np.where(length > 0, length, 1.0)
    flipped = np.abs(signs(len(units)) @ units)  # (flips, m), row 0 is observed
    order = np.argsort(-flipped[0], kind="stable")
    largest = np.maximum.accumulate(flipped[:, order[::-1]], axis=1)[:, ::-1]
    reached = (largest >= largest[0][None, :] * (1 - _EQUAL) - _EQUAL).mean(axis=0)
    adjusted = np.empty(len(order))
    adjusted[order] = np.maximum.accumulate(reached)
    return adjusted


@lru_cache(maxsize=4)  # of 4 MB and more
def signs(n: int) -> np.ndarray:
    """Return sign vectors (flips, n), the first all +1: half of all (enough by symmetry), or `RANDOM` random ones."""
    if n <= EXACT_UP_TO:
        bits = np.arange(2 ** (n - 1))[:, None] >> np.arange(n)[None, :] & 1
        return 1.0 - 2.0 * bits
    random = np.random.default_rng(0).integers(0, 2, size=(RANDOM, n))
    return np.vstack([np.ones(n), 1.0 - 2.0 * random])


def holm(p_values: object) -> np.ndarray:
    """Return Holm's (1979) adjusted p-values: `min(1, max_{i <= k} (m - i + 1) p_(i))` for the k-th smallest of m.

    Equal to statsmodels' `multipletests`, which is slow because it runs the garbage collector at every call.
    """
    array = finite(p_values, of="p-values", at_least=0)
    order = np.argsort(array, kind="stable")
    adjusted = np.empty(len(array))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(array[order] * np.arange(len(array), 0, -1)))
    return adjusted


def smallest_p(n: int) -> float:
    """Return the smallest two-sided p-value that n pairs can reach: `min(1, 2 / 2^n)`."""
    return min(1.0, 2.0 ** (1 - n))


def pairs_needed(*, alpha: float = ALPHA, comparisons: int = 1) -> int:
    """Return the smallest n with `2 / 2^n <= alpha / comparisons`: 6 for 0.05.

    Raises:
        ValueError: if an argument is out of range.
    """
    if not 0 < alpha < 1 or comparisons < 1:
        raise ValueError(f"alpha (={alpha}) must lie between 0 and 1, comparisons (={comparisons}) be at least 1")
    return math.ceil(1 - math.log2(alpha / comparisons))
