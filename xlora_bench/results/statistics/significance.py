"""Which method of a column is better than all others, if any: that one may be printed bold."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import numpy as np

from xlora_bench.results.frame.method_names import method_name
from xlora_bench.results.statistics.pairs import Name, Scores, finite, paired
from xlora_bench.results.statistics.permutation_test import ALPHA, pairs_needed, sign_flip_test, smallest_p


@dataclass(frozen=True, kw_only=True)
class Rival:
    """The best against one other: the pairs by seed, the mean difference over them and its p-value."""

    name: Hashable
    n: int
    difference: float
    p: float


def significant_from_rest(scores_by_method: Mapping[Name, Scores], *, alpha: float = ALPHA) -> Name | None:
    """Return the method with the highest mean if it is separable from every other, else None.

    Every other method is compared over the seeds that it shares with the best: the difference must be positive and
    the exact sign-flip test must have p <= alpha. All comparisons must hold at once, so the largest p decides and a
    correction for their number would only cost power (an intersection-union test); that the best is picked by its
    scores costs nothing either (Gutmann and Maymin 1987; Hung and Fithian 2019), which the simulation with eight
    methods confirms (`docs/statistics.md`). Methods without a done run are
    passed over. None with fewer than two methods, or than `pairs_needed()` shared seeds.

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
    """Return in one sentence whether the best is separable from the rest, and why not if it is not.

    Raises:
        ValueError: if a score is not a finite number.
    """
    scores = {name: runs for name, runs in scores_by_method.items() if runs}
    if len(scores) < 2:
        return "Nothing is separable: fewer than two methods have a run that is done."
    best = _best(scores)
    others = [_rival(name, scores[best], runs) for name, runs in scores.items() if name != best]
    few = [other for other in others if smallest_p(other.n) > alpha]
    if few:
        return _too_few(best, few, alpha)
    close = [other for other in others if other.difference <= 0 or other.p > alpha]
    if not close:
        without = [method_name(name) for name in scores_by_method if name not in scores]
        rest = f", save {_and(without)} without a done run" if without else ""
        p = max(other.p for other in others)
        return f"{method_name(best)} is separable from every other method{rest} (largest p = {p:.3g})."
    names = _and(method_name(other.name) for other in close)
    return f"{method_name(best)} has the highest mean but is not separable from {names}."


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
        f"{method_name(best)} has the highest mean, but nothing can be separable: {pairs} shared with "
        f"{_and(method_name(other.name) for other in few)}, which {reach}; {needed}."
    )


def _and(names: object) -> str:
    texts = list(names)  # type: ignore[call-overload]
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"
