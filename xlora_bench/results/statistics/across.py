"""Many methods over many tasks: ranks, Friedman's test, and which pairs differ (Demšar 2006).

`scores` is always a frame with a row per task and a column per method, complete, higher is better.
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
    """Return each method's mean rank over tasks, 1 is best, ties share theirs; best first."""
    _check(scores, least=1)
    return scores.rank(axis=1, ascending=False).mean().sort_values(kind="stable")


def friedman_test(scores: pd.DataFrame) -> float:
    """Return the p-value of the null that all methods rank alike (`scipy.stats.friedmanchisquare`).

    Raises:
        ValueError: if there are fewer than `LEAST_METHODS` methods or `LEAST_TASKS` tasks, or a score is missing.
    """

    _check(scores, least=LEAST_METHODS)
    if (scores.nunique(axis=1) == 1).all():
        return 1.0
    return float(stats.friedmanchisquare(*scores.to_numpy().T).pvalue)


def nemenyi_test(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the p-value of every pair of methods by Nemenyi's test (`scikit_posthocs`), corrected for all pairs.

    Raises:
        ValueError: as `friedman_test`.
    """

    _check(scores, least=LEAST_METHODS)
    result = posthoc_nemenyi_friedman(scores.to_numpy())
    return pd.DataFrame(result.to_numpy(), index=scores.columns, columns=scores.columns)


def critical_difference(methods: int, tasks: int, *, alpha: float = ALPHA) -> float:
    """Return Nemenyi's q_alpha sqrt(k (k + 1) / (6 N)): mean ranks further apart than this differ.

    From three tasks on it is below k - 1, the most that mean ranks can be apart.
    """

    q = float(stats.studentized_range.ppf(1 - alpha, methods, np.inf)) / math.sqrt(2)
    return q * math.sqrt(methods * (methods + 1) / (6 * tasks))


def wilcoxon_holm(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the p-value of every pair by Wilcoxon's signed-rank test over tasks, exact up to 50, by Holm's correction.

    Raises:
        ValueError: if there are fewer than two methods, a score is missing, or there are so few tasks that no
        p-value can reach 0.05.
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
    result = pd.DataFrame(np.eye(scores.shape[1]), index=scores.columns, columns=scores.columns)
    for (a, b), p in zip(pairs, holm(raw), strict=True):
        result.loc[a, b] = result.loc[b, a] = p
    return result


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
