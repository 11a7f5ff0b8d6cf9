"""Significance: the method of a column that is significantly better than all others, if any (printed bold)."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import numpy as np

from xlora_bench.results.frame.method_names import method_name
from xlora_bench.results.statistics.pairs import Name, Scores, finite, paired
from xlora_bench.results.statistics.permutation_test import ALPHA, pairs_needed, sign_flip_test, smallest_p


@dataclass(frozen=True, kw_only=True)
class Rival:
    """The best method against one other: number of pairs by seed, mean difference, and p-value."""

    name: Hashable
    n: int
    difference: float
    p: float


def significant_from_rest(scores_by_method: Mapping[Name, Scores], *, alpha: float = ALPHA) -> Name | None:
    """Return the method with the highest mean if it is significantly better than every other, else None.

    Each other method is compared over the seeds that it shares with the best: the mean difference must be positive, and
    the exact sign-flip test must have p <= alpha. All comparisons must hold at once (an intersection-union test), so no
    correction for their number is needed. Nor is one needed because the scores choose the best method (Gutmann and
    Maymin 1987; Hung and Fithian 2019); a simulation with eight methods confirms it (`docs/statistics.md`). Methods
    without a completed run are ignored. None for fewer than two methods, or fewer than `pairs_needed()` shared seeds.

    Raises:
        ValueError: if a score is not a finite number.
    """
    scores = {name: runs for name, runs in scores_by_method.items() if runs}
    if len(scores) < 2:
        return None
    best = _best(scores)
    others = [_rival(name, scores[best], runs) for name, runs in scores.items() if name != best]
    return best if all(other.difference > 0 and other.p <= alpha for other in others) else None


def describe_significance(scores_by_method: Mapping[Name, Scores], *, alpha: float = ALPHA) -> str:
    """Return one sentence: whether the best is significantly better than all others, or why not.

    Raises:
        ValueError: if a score is not a finite number.
    """
    scores = {name: runs for name, runs in scores_by_method.items() if runs}
    if len(scores) < 2:
        return "No method is significantly better: fewer than two methods have a completed run."
    best = _best(scores)
    others = [_rival(name, scores[best], runs) for name, runs in scores.items() if name != best]
    few = [other for other in others if smallest_p(other.n) > alpha]
    if few:
        return _too_few(best, few, alpha)
    close = [other for other in others if other.difference <= 0 or other.p > alpha]
    if not close:
        without = [method_name(name) for name in scores_by_method if name not in scores]
        rest = f", except {_and(without)} without a completed run" if without else ""
        p = max(other.p for other in others)
        return f"{method_name(best)} is significantly better than every other method{rest} (largest p = {p:.3g})."
    names = _and(method_name(other.name) for other in close)
    return f"{method_name(best)} has the highest mean but is not significantly better than {names}."


def _best(scores: Mapping[Name, Scores]) -> Name:
    return max(scores, key=lambda name: float(np.mean(finite(list(scores[name].values()), of="scores"))))


def _rival(name: Hashable, best: Scores, runs: Scores) -> Rival:
    if not set(best) & set(runs):
        return Rival(name=name, n=0, difference=0.0, p=1.0)
    differences = paired(best, runs).differences
    return Rival(name=name, n=len(differences), difference=float(differences.mean()), p=sign_flip_test(differences))


def _too_few(best: Hashable, few: list[Rival], alpha: float) -> str:
    least = min(other.n for other in few)
    reach = f"cannot reach p <= {alpha:g} in an exact paired test (at best {smallest_p(least):g})"
    needed = f"{pairs_needed(alpha=alpha)} are needed"
    pairs = "no seed is" if least == 0 else "1 seed is" if least == 1 else f"{least} seeds are"
    return (
        f"{method_name(best)} has the highest mean, but cannot be significantly better than all others: "
        f"{pairs} shared with {_and(method_name(other.name) for other in few)}, which {reach}; {needed}."
    )


def _and(names: object) -> str:
    texts = list(names)  # type: ignore[call-overload]
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"
