"""Exact paired tests over seeds: under the null the sign of each seed's difference is a fair coin.

The p-value of n differences d is the share of the 2^n sign vectors s with |sum s_i d_i| >= |sum d_i| (Fisher 1935).
No p-value can be below 2 / 2^n: five seeds cannot reach 0.05 (0.0625), six can (0.03125).
"""

import math

import numpy as np

from xlora_bench.results.statistics.pairs import finite

ALPHA = 0.05
EXACT_UP_TO = 14
"""Seeds up to which all sign vectors are counted; beyond, `RANDOM` random ones."""
RANDOM = 20_000
_EQUAL = 1e-9


def sign_flip_test(differences: object) -> float:
    """Return the two-sided p-value of the null that the differences (n,) are symmetric around 0.

    Raises:
        ValueError: if there is no difference, or one is not finite.
    """
    array = finite(differences, of="differences")
    return float(westfall_young(array[:, None])[0])


def westfall_young(differences: np.ndarray) -> np.ndarray:
    """Return p-values (m,) of m comparisons with one reference, (n seeds, m), adjusted for there being m.

    Westfall and Young's step-down max-T: all comparisons of a seed flip together, t_j = |sum_i s_i d_ij| / |d_j|,
    and each is held against the largest t of those not yet rejected. Controls the chance of any false rejection
    and, unlike Holm, reaches 2 / 2^n however many comparisons there are. NaN is a pair that does not exist.

    Raises:
        ValueError: if a column has no pair or a value is infinite.
    """
    known = np.where(np.isnan(differences), 0.0, differences)
    if known.ndim != 2 or not len(known) or np.isnan(differences).all(axis=0).any() or np.isinf(known).any():
        raise ValueError("each comparison needs at least one pair of finite scores; run both methods with one seed")
    length = np.sqrt((known**2).sum(axis=0))
    units = known / np.where(length > 0, length, 1.0)
    flipped = np.abs(signs(len(units)) @ units)  # (flips, m), the first row is as observed
    order = np.argsort(-flipped[0], kind="stable")
    largest = np.maximum.accumulate(flipped[:, order[::-1]], axis=1)[:, ::-1]
    reached = (largest >= largest[0][None, :] * (1 - _EQUAL) - _EQUAL).mean(axis=0)
    adjusted = np.empty(len(order))
    adjusted[order] = np.maximum.accumulate(reached)
    return adjusted


def signs(n: int) -> np.ndarray:
    """Return sign vectors (flips, n), the identity first: half of all (the rest mirrors them), or random ones."""
    if n <= EXACT_UP_TO:
        bits = np.arange(2 ** (n - 1))[:, None] >> np.arange(n)[None, :] & 1
        return 1.0 - 2.0 * bits
    random = np.random.default_rng(0).integers(0, 2, size=(RANDOM, n))
    return np.vstack([np.ones(n), 1.0 - 2.0 * random])


def holm(p_values: object) -> np.ndarray:
    """Return Holm's (1979) adjusted p-values: the k-th smallest of m times m - k + 1, never decreasing, at most 1.

    As statsmodels' `multipletests`, which collects garbage at every call.
    """
    array = finite(p_values, of="p-values", at_least=0)
    order = np.argsort(array, kind="stable")
    adjusted = np.empty(len(array))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(array[order] * np.arange(len(array), 0, -1)))
    return adjusted


def smallest_p(n: int) -> float:
    """Return the smallest two-sided p-value that n pairs can reach, 2 / 2^n (1 for one pair)."""
    return min(1.0, 2.0 ** (1 - n))


def pairs_needed(*, alpha: float = ALPHA, comparisons: int = 1) -> int:
    """Return the number of pairs from which p <= alpha / comparisons can be reached at all: 6 for 0.05."""
    if not 0 < alpha < 1 or comparisons < 1:
        raise ValueError(f"alpha (={alpha}) must lie between 0 and 1, comparisons (={comparisons}) be at least 1")
    return math.ceil(1 - math.log2(alpha / comparisons))
