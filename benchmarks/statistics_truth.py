"""Coverage of the intervals and error rates of the tests, on simulated runs whose true scores are known.

    python benchmarks/statistics_truth.py

It logs the tables of docs/statistics.md and takes some minutes. The errors of a run are normal, skewed (gamma of shape
4, skewness -1: some seeds are much worse) or very skewed (exponential, skewness -2).
"""

import logging
import math
import warnings
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pandas as pd
from scipy import stats

from xlora_bench.results.statistics import significant_from_rest
from xlora_bench.results.statistics.across import critical_difference, friedman_test, wilcoxon_holm
from xlora_bench.results.statistics.examples import compare_by_example, mcnemar_over_seeds, resampled_scores
from xlora_bench.results.statistics.iqm import iqm_interval
from xlora_bench.results.statistics.permutation_test import ALPHA, holm, sign_flip_test, westfall_young
from xlora_bench.results.statistics.power import _power

log = logging.getLogger("benchmarks.statistics_truth")
RNG = np.random.default_rng()
START = np.random.default_rng(20240607).bit_generator.state
ERRORS: dict[str, Callable[[tuple[int, ...]], np.ndarray]] = {
    "normal": lambda shape: RNG.normal(size=shape),
    "skewed": lambda shape: (4 - RNG.gamma(4, size=shape)) / 2,
    "very skewed": lambda shape: 1 - RNG.exponential(size=shape),
}
"""Mean 0, variance 1."""


def main() -> None:
    """Log all tables."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    log.setLevel(logging.INFO)
    warnings.simplefilter("ignore", RuntimeWarning)
    for name, table in TABLES.items():
        log.info("\n%s\n", name)
        RNG.bit_generator.state = START  # a table does not depend on those before it
        rows = table()
        head = list(rows[0])
        log.info("| %s |\n|%s", " | ".join(head), "---|" * len(head))
        for row in rows:
            log.info("| %s |", " | ".join(_text(value) for value in row.values()))


def seed_intervals() -> list[dict[str, object]]:
    """Return the coverage of the intervals over seeds: t in 200,000 samples, BCa in 4,000."""
    return [
        {
            "errors": name,
            "n": n,
            "mean, t": _covered_t(draw((200_000, n))),
            "mean, BCa": _covered_bca(draw((4000, n))),
            "paired difference, t": _covered_t(draw((200_000, n)) - draw((200_000, n))),
            "paired difference, BCa": _covered_bca(draw((4000, n)) - draw((4000, n))),
        }
        for name, draw in ERRORS.items()
        for n in (3, 4, 5, 6, 10, 20)
    ]


def iqm_intervals(repeats: int = 500) -> list[dict[str, object]]:
    """Return the coverage of the interquartile mean of paired differences over tasks and seeds."""
    return [
        {"errors": name, "seeds": n}
        | {f"over {tasks}": _mean(_iqm_covers(draw, tasks, n) for _ in range(repeats)) for tasks in (1, 3, 5)}
        for name, draw in ERRORS.items()
        if name != "skewed"
        for n in (3, 5, 6, 10)
    ]


def example_intervals(repeats: int = 400) -> list[dict[str, object]]:
    """Return the coverage of the intervals over examples for two methods whose true difference is 0.

    A run predicts an example correctly where `example + 0.5 method-example + seed + 0.7 noise > 0`.
    """
    rows = []
    for seeds, examples, by_seed in ((3, 277, 0.1), (6, 277, 0.1), (6, 872, 0.1), (6, 872, 0.3), (10, 872, 0.1)):
        row: dict[str, object] = {"seeds": seeds, "examples": examples, "sd of a seed": by_seed}
        for metric in ("accuracy", "matthews"):
            result = np.mean([_by_example(metric, seeds, examples, by_seed) for _ in range(repeats)], axis=0)
            row |= {f"{metric}: seeds and examples": float(result[0]), f"{metric}: examples only": float(result[1])}
        rows.append(row)
    return rows


def mcnemar(repeats: int = 1000) -> list[dict[str, object]]:
    """Return how often McNemar's test has p <= 0.05 although the methods do not differ."""
    rows = []
    for seeds, examples in ((1, 277), (6, 277), (6, 872)):
        row: dict[str, object] = {"seeds": seeds, "examples": examples}
        for by_seed in (0.0, 0.3):
            rejected = _mean(_mcnemar_rejects(seeds, examples, by_seed) for _ in range(repeats))
            row[f"sd of a seed {by_seed}"] = rejected
        rows.append(row)
    return rows


def against_reference(repeats: int = 2000) -> list[dict[str, object]]:
    """Return how often any of the comparisons with a reference has p <= 0.05 although all methods are equal."""
    rows = []
    for name, draw in ERRORS.items():
        for n in (5, 6, 8, 10):
            for methods in (2, 8):
                runs = draw((repeats, n, methods))
                columns = runs[..., 1:] - runs[..., :1]
                raw = np.array([[sign_flip_test(each) for each in rows_.T] for rows_ in columns])
                rows.append(
                    {
                        "errors": name,
                        "seeds": n,
                        "methods": methods,
                        "no correction": _rate(raw.min(axis=1)),
                        "Holm": _rate([holm(p).min() for p in raw]),
                        "max-T": _rate([westfall_young(each).min() for each in columns]),
                    }
                )
    return rows


def bold(repeats: int = 1000) -> list[dict[str, object]]:
    """Return how often `significant_from_rest` names a method although none is better than all others."""
    rows = []
    for name, draw in ERRORS.items():
        for n in (5, 6, 8, 10):
            row: dict[str, object] = {"errors": name, "seeds": n}
            for label, levels in (
                ("2 methods, equal", [0.0, 0.0]),
                ("8 methods, equal", [0.0] * 8),
                ("8 methods, two equal ahead", [0.0, 0.0] + [-20.0] * 6),
                ("8 methods, three equal ahead", [0.0, 0.0, 0.0] + [-20.0] * 5),
            ):
                runs = draw((repeats, n, len(levels))) + np.array(levels)
                row[label] = _mean(_names_one(each) for each in runs)
            rows.append(row)
    return rows


def power(repeats: int = 1000) -> list[dict[str, object]]:
    """Return how often a test detects a mean difference of `effect` standard deviations of the paired differences."""
    rows = []
    for effect in (0.5, 1.0, 1.5, 2.0, 3.0):
        for n in (5, 6, 8, 10, 12):
            one = RNG.normal(effect, 1, size=(repeats, n, 1))
            seven = RNG.normal(size=(repeats, n, 7))
            seven[..., 0] += effect
            rows.append(
                {
                    "effect": effect,
                    "seeds": n,
                    "sign-flip": _rate([westfall_young(each)[0] for each in one]),
                    "t, by formula": _power(effect, n, ALPHA),
                    "max-T of 7": _rate([westfall_young(each)[0] for each in seven]),
                    "t / 7, by formula": _power(effect, n, ALPHA / 7),
                }
            )
    return rows


def over_tasks(repeats: int = 1000) -> list[dict[str, object]]:
    """Return how often a test finds a difference between methods that are equal on every task."""
    rows = []
    for methods in (3, 8):
        for tasks in (3, 5, 10, 20):
            frames = [pd.DataFrame(RNG.normal(size=(tasks, methods))) for _ in range(repeats)]
            distance = critical_difference(methods, tasks)
            rows.append(
                {
                    "methods": methods,
                    "tasks": tasks,
                    "Friedman": _rate([friedman_test(frame) for frame in frames]),
                    "Nemenyi, any pair": _mean(np.ptp(frame.rank(axis=1).mean()) > distance for frame in frames),
                    "Wilcoxon-Holm, any pair": _wilcoxon_holm(frames[:300]),
                }
            )
    return rows


def _covered_t(samples: np.ndarray) -> float:
    n = samples.shape[1]
    half = stats.t.ppf(0.975, n - 1) * samples.std(axis=1, ddof=1) / math.sqrt(n)
    return float((np.abs(samples.mean(axis=1)) <= half).mean())


def _covered_bca(samples: np.ndarray) -> float:
    hits = []
    for part in np.split(samples, 20):
        result = stats.bootstrap((part,), np.mean, n_resamples=999, axis=-1, method="BCa", vectorized=True, rng=RNG)
        hits.append((result.confidence_interval.low <= 0) & (result.confidence_interval.high >= 0))
    return float(np.mean(hits))


def _iqm_covers(draw: Callable[[tuple[int, ...]], np.ndarray], tasks: int, n: int) -> bool:
    differences = draw((tasks, n)) - draw((tasks, n))
    seed = int(RNG.integers(2**31))
    return 0.0 in iqm_interval(dict(enumerate(differences)), resamples=1000, seed=seed)


def _runs(seeds: int, examples: int, by_seed: float, *, own: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return labels and the predictions (seeds, examples) of two methods that are equally good."""
    labels, easy = RNG.integers(0, 2, examples), RNG.normal(1, 1.5, examples)
    both = []
    for _ in range(2):
        right = easy + own * RNG.normal(size=examples) + by_seed * RNG.normal(size=(seeds, 1))
        both.append(np.where(right + 0.7 * RNG.normal(size=(seeds, examples)) > 0, labels, 1 - labels))
    return labels, both[0], both[1]


def _by_example(metric: str, seeds: int, examples: int, by_seed: float) -> tuple[bool, bool]:
    labels, first, second = _runs(seeds, examples, by_seed, own=0.5)
    scores = resampled_scores(
        metric, np.concatenate([first, second]), labels, resamples=400, seed=int(RNG.integers(2**31))
    )
    result = compare_by_example(scores[:seeds], scores[seeds:], examples=examples)
    assert result.seeds_and_examples is not None
    return 0.0 in result.seeds_and_examples, 0.0 in result.these_runs


def _mcnemar_rejects(seeds: int, examples: int, by_seed: float) -> bool:
    labels, first, second = _runs(seeds, examples, by_seed, own=0.0)
    return mcnemar_over_seeds(first, second, labels) <= ALPHA


def _names_one(runs: np.ndarray) -> bool:
    return significant_from_rest({name: dict(enumerate(column)) for name, column in enumerate(runs.T)}) is not None


def _wilcoxon_holm(frames: Sequence[pd.DataFrame]) -> float | str:
    try:
        return _rate([wilcoxon_holm(frame).to_numpy().min() for frame in frames])
    except ValueError:
        return "refused"


def _mean(values: Iterable[bool]) -> float:
    return float(np.mean(list(values)))


def _rate(p_values: Sequence[float] | np.ndarray) -> float:
    return float((np.asarray(p_values) <= ALPHA).mean())


def _text(value: object) -> str:
    return f"{value:.3f}".lstrip("0") if isinstance(value, float) and value < 1 else str(value)


TABLES: dict[str, Callable[[], list[dict[str, object]]]] = {
    "Coverage of 95 % intervals over seeds": seed_intervals,
    "Coverage of 95 % intervals of the interquartile mean of paired differences": iqm_intervals,
    "Coverage of 95 % intervals by example": example_intervals,
    "False positives of McNemar's test": mcnemar,
    "False positives against a reference": against_reference,
    "False positives of bold": bold,
    "Power": power,
    "False positives over tasks": over_tasks,
}

if __name__ == "__main__":
    main()
