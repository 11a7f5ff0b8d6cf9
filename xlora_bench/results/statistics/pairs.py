"""Pairs of runs of two methods with the same seed: shared effects (head init, data order) cancel in the difference."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pandas as pd

Name = TypeVar("Name", bound=Hashable)
Scores = Mapping[Hashable, float]
"""Seed -> score of the completed runs of one method."""


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Scores `first` and `second`, (n,) each, at the n shared `seeds`; seeds that only one of the two has."""

    seeds: list[Hashable]
    first: np.ndarray
    second: np.ndarray
    only_first: list[Hashable]
    only_second: list[Hashable]

    @property
    def differences(self) -> np.ndarray:
        """First minus second, (n,)."""
        return self.first - self.second

    @property
    def n(self) -> int:
        """The number of pairs."""
        return len(self.seeds)


def paired(first: Scores, second: Scores) -> Pairs:
    """Pair the scores of two methods at the seeds that both have, in the order of the first.

    Raises:
        ValueError: if a score is not a finite number, or no seed is shared.
    """
    for scores in (first, second):
        finite(list(scores.values()), of="scores")
    seeds = [seed for seed in first if seed in second]
    if not seeds:
        raise ValueError(
            f"the seeds {_list(first)} and {_list(second)} share none: pairs need runs with the same seed; "
            "run both methods with the same seeds"
        )
    return Pairs(
        seeds=seeds,
        first=np.array([first[seed] for seed in seeds], dtype=np.float64),
        second=np.array([second[seed] for seed in seeds], dtype=np.float64),
        only_first=[seed for seed in first if seed not in second],
        only_second=[seed for seed in second if seed not in first],
    )


def done_scores(
    frame: pd.DataFrame, group_keys: pd.Series, *, value: str = "score"
) -> dict[Hashable, dict[Hashable, float]]:
    """Return group -> seed -> score of the completed runs of a tidy frame; `group_keys` has the group of each row.

    A group without a completed run has an empty dict.

    Raises:
        ValueError: if two completed runs of a group have the same seed, because they cannot be paired.
    """
    result: dict[Hashable, dict[Hashable, float]] = {key: {} for key in group_keys}
    scores = pd.to_numeric(frame[value], errors="coerce")
    done = (frame["status"] == "completed") & scores.notna()
    for key, seed, score in zip(group_keys[done], frame.loc[done, "seed"], scores[done], strict=True):
        if seed in result[key]:
            raise ValueError(
                f"{key!r} has two runs with seed {seed}: runs are paired by their seed, which must be one run each; "
                "filter the table so that each method has one run per seed"
            )
        result[key][seed] = float(score)
    return result


def finite(values: object, *, of: str = "values", at_least: int = 1) -> np.ndarray:
    """Return `values` as float64 of shape (n,).

    Raises:
        ValueError: if there are fewer than `at_least`, or one is not a finite number.
    """
    array = np.asarray(values, dtype=np.float64).reshape(-1)
    if len(array) < at_least:
        raise ValueError(f"{len(array)} {of} are too few: at least {at_least} are needed; run more seeds")
    if not np.isfinite(array).all():
        raise ValueError(f"the {of} {array.tolist()} must be finite numbers: leave out runs that are not completed")
    return array


def _list(seeds: Scores) -> str:
    return ", ".join(map(str, seeds)) or "(none)"
