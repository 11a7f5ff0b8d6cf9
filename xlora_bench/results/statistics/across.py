"""Comparison of k methods over N tasks: mean ranks, Friedman's test, and tests of pairs (Demšar 2006).

`scores` is always a frame (N tasks, k methods) without missing values; higher is better.
"""

import math
from itertools import combinations

import numpy as np
import pandas as pd
from scikit_posthocs import posthoc_nemenyi_friedman
from scipy import stats

from xlora_bench.results.statistics.permutation_test import ALPHA, holm, pairs_needed

LEAST_TASKS = 3
LEAST_METHODS = 3


def average_ranks(scores: pd.DataFrame) -> pd.Series:
    """Return the mean rank over tasks of each method, (k,), best first; rank 1 is best, ties get their mean rank.

    Raises:
        ValueError: if there are fewer than `LEAST_TASKS` tasks, or a score is missing.
    """
    _check(scores, least=1)
    return scores.rank(axis=1, ascending=False).mean().sort_values(kind="stable")


def friedman_test(scores: pd.DataFrame) -> float:
    """Return the p-value of Friedman's test; null hypothesis: all methods have equal ranks; 1 if every task is a tie.

    Computed by `scipy.stats.friedmanchisquare` (chi-squared approximation).

    Raises:
        ValueError: if there are fewer than `LEAST_METHODS` methods or `LEAST_TASKS` tasks, or a score is missing.
    """
    _check(scores, least=LEAST_METHODS)
    if (scores.nunique(axis=1) == 1).all():
        return 1.0
    return float(stats.friedmanchisquare(*scores.to_numpy().T).pvalue)


def nemenyi_test(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the p-values (k, k) of all pairs by Nemenyi's test (`scikit_posthocs`), corrected for the number of pairs.

    Raises:
        ValueError: as `friedman_test`.
    """
    _check(scores, least=LEAST_METHODS)
    p_values = posthoc_nemenyi_friedman(scores.to_numpy())
    return pd.DataFrame(p_values.to_numpy(), index=scores.columns, columns=scores.columns)


def critical_difference(methods: int, tasks: int, *, alpha: float = ALPHA) -> float:
    """Return Nemenyi's critical difference `CD = q_alpha sqrt(k (k + 1) / (6 N))` for k `methods` and N `tasks`.

    `q_alpha` is the studentized range quantile (infinite degrees of freedom) over sqrt(2). Two methods differ if their
    mean ranks differ by more than CD. For N >= 3, CD is below k - 1, the largest possible difference.
    """
    q = float(stats.studentized_range.ppf(1 - alpha, methods, np.inf)) / math.sqrt(2)
    return q * math.sqrt(methods * (methods + 1) / (6 * tasks))


def wilcoxon_holm(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the p-values (k, k) of all pairs by Wilcoxon's signed-rank test over tasks, adjusted by Holm's method.

    `scipy.stats.wilcoxon(method="auto")`; p = 1 for a pair without any difference.

    Raises:
        ValueError: if there are fewer than two methods or `LEAST_TASKS` tasks, a score is missing, or there are so few
            tasks that no adjusted p-value can reach 0.05.
    """
    _check(scores, least=2)
    pairs = list(combinations(scores.columns, 2))
    needed = pairs_needed(comparisons=len(pairs))
    if len(scores) < needed:
        raise ValueError(
            f"{len(scores)} tasks are too few for Wilcoxon's test of {len(pairs)} pairs with Holm's correction: no "
            f"p-value can reach {ALPHA}; at least {needed} tasks are needed, or fewer methods"
        )
    differences = [(scores[a] - scores[b]).to_numpy() for a, b in pairs]
    raw = [float(stats.wilcoxon(each, method="auto").pvalue) if each.any() else 1.0 for each in differences]
    p_values = pd.DataFrame(np.eye(scores.shape[1]), index=scores.columns, columns=scores.columns)
    for (a, b), p in zip(pairs, holm(raw), strict=True):
        p_values.loc[a, b] = p_values.loc[b, a] = p
    return p_values


def _check(scores: pd.DataFrame, *, least: int) -> None:
    if scores.isna().to_numpy().any():
        raise ValueError(
            "a comparison over tasks needs a score of every method on every task; leave out what lacks one"
        )
    if scores.shape[1] < least:
        raise ValueError(
            f"{scores.shape[1]} methods are too few for a comparison over tasks: at least {least} are needed"
        )
    if len(scores) < LEAST_TASKS:
        raise ValueError(
            f"{len(scores)} tasks are too few for a comparison over tasks: at least {LEAST_TASKS} are needed"
        )
