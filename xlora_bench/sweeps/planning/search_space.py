"""Search space of `tuning:`: the values to try for one method, from a grid or by random draws."""

import itertools
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xlora_bench.runs import seeds

Values = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Space:
    """Tuned keys (`axes`) for the runs that match `when`; each axis is a list or a range `{low:, high:, log:}`.

    Raises:
        ValueError: if there is no axis, or an axis is neither, or is empty.
    """

    when: Mapping[str, Sequence[Any]]
    axes: Mapping[str, Any]

    def __post_init__(self) -> None:
        if not self.axes:
            raise ValueError(f"a rule of `tuning.space` (when {dict(self.when)}) names no key to tune")
        for key, axis in self.axes.items():
            if isinstance(axis, Mapping):
                _check_range(key, axis)
            elif not isinstance(axis, list) or not axis:
                raise ValueError(
                    f"`{key}` (={axis}) in `tuning.space` must be a list of values or {{low:, high:, log:}}"
                )

    @classmethod
    def parse(cls, node: Any) -> "Space":
        """Parse a rule of `tuning.space`: an optional `when`, and the axes by key."""
        if not isinstance(node, Mapping) or not isinstance(node.get("when", {}), Mapping):
            raise ValueError(f"a rule of `tuning.space` (={node}) must map the keys to tune to their values")
        if "seed" in node:
            raise ValueError("`seed` in `tuning.space` is refused: a seed is not a hyperparameter; use more trials")
        when = {key: value if isinstance(value, list) else [value] for key, value in node.get("when", {}).items()}
        return cls(when=when, axes={key: value for key, value in node.items() if key != "when"})

    def grid(self, trials: int) -> list[Values]:
        """Return every point of the grid (Cartesian product of the lists).

        Raises:
            ValueError: if their number is not `trials`, or an axis is a range.
        """
        if ranges := [key for key, axis in self.axes.items() if isinstance(axis, Mapping)]:
            raise ValueError(f"`{ranges[0]}` in `tuning.space` is a range: a grid needs lists, or say search: random")
        points = self._points()
        if len(points) != trials:
            raise ValueError(
                f"`tuning.trials` (={trials}) must be the size of every grid, so that every method gets as many: "
                f"{dict(self.axes)} has {len(points)} points"
            )
        return points

    def draw(self, trials: int, *, seed: int) -> list[Values]:
        """Return `trials` random points: a sample of the grid, or with a range, quantiles drawn by (seed, key, trial).

        Every method gets the same quantiles, because they depend on nothing else.

        Raises:
            ValueError: if all axes are lists and their grid has fewer points than `trials`.
        """
        if any(isinstance(axis, Mapping) for axis in self.axes.values()):
            return [self._point(trial, seed=seed) for trial in range(trials)]
        points = self._points()
        if len(points) < trials:
            raise ValueError(
                f"`tuning.trials` (={trials}) must be at most {len(points)}, the points of {dict(self.axes)}"
            )
        return random.Random(seeds.derive(seed, "tuning")).sample(points, trials)

    def _points(self) -> list[Values]:
        return [dict(zip(self.axes, chosen, strict=True)) for chosen in itertools.product(*self.axes.values())]

    def _point(self, trial: int, *, seed: int) -> Values:
        return {key: _at(axis, _uniform(seed, key, trial)) for key, axis in self.axes.items()}


def _uniform(seed: int, key: str, trial: int) -> float:
    return random.Random(seeds.derive(seed, "tuning", key, trial)).random()


def _at(axis: Any, quantile: float) -> Any:
    """Return the value of an axis at a quantile in [0, 1): an integer for integer bounds, else to three digits."""
    if isinstance(axis, list):
        return axis[int(quantile * len(axis))]
    low, high = axis["low"], axis["high"]
    if axis.get("log"):
        value = math.exp(math.log(low) + quantile * (math.log(high) - math.log(low)))
    else:
        value = low + quantile * (high - low)
    return round(value) if isinstance(low, int) and isinstance(high, int) else float(f"{value:.3g}")


def _check_range(key: str, axis: Mapping[str, Any]) -> None:
    known = {"low", "high"} <= set(axis) <= {"low", "high", "log"}
    numbers = known and all(isinstance(axis[end], int | float) for end in ("low", "high"))
    if not numbers or not axis["low"] < axis["high"] or (axis.get("log") and axis["low"] <= 0):
        raise ValueError(
            f"`{key}` (={dict(axis)}) in `tuning.space` must have low < high, above 0 if log: true, and no other key"
        )
