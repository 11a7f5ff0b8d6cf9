"""Pairwise test of one method against the reference in one column, and its verdict in words."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from xlora_bench.results.comparison.predictions import Examples
from xlora_bench.results.frame.pivot_axes import Key
from xlora_bench.results.statistics.examples import ByExample, compare_by_example, mcnemar_over_seeds, resampled_scores
from xlora_bench.results.statistics.intervals import UNBOUNDED, Bounds, Interval, mean_interval, of_difference
from xlora_bench.results.statistics.pairs import Pairs
from xlora_bench.results.statistics.permutation_test import (
    ALPHA,
    holm,
    pairs_needed,
    sign_flip_test,
    smallest_p,
    westfall_young,
)
from xlora_bench.results.statistics.power import MANY, detectable_difference, seeds_to_separate


@dataclass(frozen=True, kw_only=True)
class PairwiseTest:
    """One method against the reference, paired by seed; differences are method minus reference.

    `p` is of the sign-flip test. `p_holm` (Holm) and `p_max_t` (Westfall-Young) are adjusted for the `comparisons` of
    the column. `mcnemar` and `by_example` are from stored predictions; None if these runs do not allow them. `bounds`
    are those of a score.
    """

    pairs: Pairs
    comparisons: int
    p: float
    p_holm: float
    p_max_t: float
    mcnemar: float | None = None
    by_example: ByExample | None = None
    bounds: Bounds = UNBOUNDED

    @cached_property
    def difference(self) -> float:
        """The mean difference."""
        return float(self.pairs.differences.mean())

    @cached_property
    def interval(self) -> Interval | None:
        """The t-interval of the difference over seeds; None for one pair."""
        within = of_difference(self.bounds)
        return mean_interval(self.pairs.differences, bounds=within) if self.pairs.n > 1 else None

    @cached_property
    def detectable(self) -> float | None:
        """True difference that this many seeds detect with power 80 %; None for one pair, inf for fewer than six."""
        if self.pairs.n < 2:
            return None
        return detectable_difference(self.pairs.differences, comparisons=self.comparisons)

    @cached_property
    def seeds_needed(self) -> float | None:
        """Number of seeds to make this difference significant; None for one pair or no difference, inf above `MANY`."""
        if self.pairs.n < 2 or self.difference == 0:
            return None
        return max(seeds_to_separate(self.pairs.differences, comparisons=self.comparisons), self.pairs.n + 1)

    @property
    def significant(self) -> bool:
        """Whether the difference is significant over seeds: `p_max_t <= ALPHA`."""
        return self.p_max_t <= ALPHA

    @property
    def verdict(self) -> str:
        """The result of the test, in words."""
        if self.significant:
            word = "significant: better" if self.difference > 0 else "significant: worse"
            crossed = self.by_example.seeds_and_examples if self.by_example else None
            return f"{word}, but only on these examples" if crossed is not None and 0.0 in crossed else word
        if smallest_p(self.pairs.n) > ALPHA:
            seeds = "1 shared seed" if self.pairs.n == 1 else f"{self.pairs.n} shared seeds"
            return f"cannot be significant: {seeds}, {pairs_needed()} are needed"
        if self.seeds_needed is None:
            return "not significant: no difference"
        about = f"about {self.seeds_needed:.0f}" if math.isfinite(self.seeds_needed) else f"more than {MANY}"
        return f"not significant: would need {about} seeds"


def against_reference(
    pairs: Mapping[Key, Pairs], *, reference: Key, examples: Examples, bounds: Bounds
) -> dict[Key, PairwiseTest]:
    """Return the test of each method that has at least one pair with the reference; `bounds` are those of a score."""
    if not pairs:
        return {}
    raw = [sign_flip_test(each.differences) for each in pairs.values()]
    adjusted = westfall_young(_matrix(pairs))
    scores = _resampled(examples)
    return {
        name: PairwiseTest(
            pairs=each,
            comparisons=len(pairs),
            p=p,
            p_holm=float(p_holm),
            p_max_t=float(p_max_t),
            mcnemar=_mcnemar(each, name, reference, examples),
            by_example=_by_example(each, name, reference, scores, examples, bounds=bounds),
            bounds=bounds,
        )
        for (name, each), p, p_holm, p_max_t in zip(pairs.items(), raw, holm(raw), adjusted, strict=True)
    }


def _matrix(pairs: Mapping[Key, Pairs]) -> np.ndarray:
    """Return the differences (seeds, methods); NaN: the method has no pair at that seed."""
    seeds = list(dict.fromkeys(seed for each in pairs.values() for seed in each.seeds))
    result = np.full((len(seeds), len(pairs)), np.nan)
    for column, each in enumerate(pairs.values()):
        result[[seeds.index(seed) for seed in each.seeds], column] = each.differences
    return result


def _resampled(examples: Examples) -> dict[tuple[object, object], np.ndarray]:
    """Return each run's scores on the same resampled examples."""
    if not examples.runs:
        return {}
    scores = resampled_scores(examples.metric, np.stack(list(examples.runs.values())), examples.labels)
    return dict(zip(examples.runs, scores, strict=True))


def _both(
    pairs: Pairs, name: Key, reference: Key, runs: Mapping[tuple[object, object], np.ndarray]
) -> list[np.ndarray]:
    """Return the entries of `runs` for the method and for the reference, stacked over the seeds that both have."""
    seeds = [seed for seed in pairs.seeds if (name, seed) in runs and (reference, seed) in runs]
    return [np.stack([runs[who, seed] for seed in seeds]) for who in (name, reference)] if seeds else []


def _mcnemar(pairs: Pairs, name: Key, reference: Key, examples: Examples) -> float | None:
    both = _both(pairs, name, reference, examples.runs) if examples.is_classification else []
    return mcnemar_over_seeds(both[0], both[1], examples.labels) if both else None


def _by_example(
    pairs: Pairs,
    name: Key,
    reference: Key,
    scores: Mapping[tuple[object, object], np.ndarray],
    examples: Examples,
    *,
    bounds: Bounds,
) -> ByExample | None:
    both = _both(pairs, name, reference, scores)
    return compare_by_example(both[0], both[1], examples=len(examples.labels), bounds=bounds) if both else None
