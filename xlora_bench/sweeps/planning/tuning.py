"""`tuning:`: the same number of trials for every method, on a seed and held-out rows that no reported run uses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from xlora_bench.results.frame.trials import BY
from xlora_bench.runs.grid_rules import ABSENT, matches
from xlora_bench.runs.overrides import Overrides, as_text
from xlora_bench.sweeps.planning.grid import Grid, GridPoint
from xlora_bench.sweeps.planning.jobs import Job, PlannedRun
from xlora_bench.sweeps.planning.search_space import Space, Values

Group = tuple[str, ...]
"""Values of the keys `tuning.by`; runs with equal values are tuned together."""


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """Options of `tuning:`: `trials` per combination of `by`, scored on `holdout` held-out training rows with `seed`.

    Raises:
        ValueError: if an option is outside its range.
    """

    seed: int
    holdout: int
    trials: int
    space: Sequence[Space]
    search: str = "grid"
    by: tuple[str, ...] = BY

    def __post_init__(self) -> None:
        for name, least in (("seed", 0), ("holdout", 1), ("trials", 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"`tuning.{name}` (={value!r}) must be a whole number of at least {least}")
        if self.search not in ("grid", "random"):
            raise ValueError(f"`tuning.search` (={self.search}) must be grid or random")
        if not self.space:
            raise ValueError("`tuning.space` is empty: name the keys to tune and their values")

    @property
    def keys(self) -> set[str]:
        """All tuned keys of all spaces."""
        return {key for space in self.space for key in space.axes}

    @classmethod
    def parse(cls, node: Mapping[str, Any]) -> "Tuning":
        """Parse the `tuning` node of a config."""
        known, needed = set(cls.__dataclass_fields__), {"seed", "holdout", "trials", "space"}
        if wrong := sorted((set(node) - known) | (needed - set(node))):
            raise ValueError(f"missing or unknown in `tuning`: {', '.join(wrong)}; it holds {', '.join(sorted(known))}")
        space = node["space"]
        if not isinstance(space, list):
            raise ValueError(f"`tuning.space` (={space}) must be a list of rules")
        by = node.get("by", cls.by)
        options = {key: node[key] for key in ("seed", "holdout", "trials", "search") if key in node}
        return cls(**options, by=tuple(by), space=[Space.parse(item) for item in space])


class Tuner:
    """The trials of a sweep, and after them the reported runs.

    A group is a set of runs with the same values of `tuning.by`. It has `tuning.trials` trials; the tuned runs take the
    values of the trial with the highest score.

    Raises:
        ValueError: if `tuning.seed` is a reported seed, a tuned key is set on the command line, no space or several
            match a group, a key of `by` is in no run, or `trials` does not fit a space.
    """

    def __init__(self, tuning: Tuning, grid: Grid) -> None:
        self.tuning = tuning
        self.notes: list[str] = []
        self._grid = grid
        self._groups: dict[Group, list[GridPoint]] = {}
        self._check_by()
        for grid_point in grid.grid_points:
            self._groups.setdefault(self._group(grid_point), []).append(grid_point)
        self._check_seeds()
        self._points = {group: self._values(grid_points) for group, grid_points in self._groups.items()}
        self.trials = [self._trial(self._groups[group][0], values) for group, values in self._in_order()]

    def reported(self, jobs: Mapping[int, Job]) -> list[PlannedRun]:
        """Return every reported run: as configured (fixed), and with the values of its group's best trial (tuned).

        With empty `jobs` the values are not known yet: each fixed run then stands for both.
        """
        best = self._best(jobs)
        self.notes = self._told(best) if jobs else []
        by_signature: dict[tuple[Any, ...], tuple[GridPoint, list[str]]] = {}
        for grid_point in self._grid.grid_points:
            values = best[self._group(grid_point)] if jobs else {}
            tuned = (
                None if values is None else GridPoint(raw=grid_point.raw, overrides=_with(grid_point.overrides, values))
            )
            for kind, run in (("fixed", grid_point), ("tuned", tuned)):
                if run is not None:
                    _, kinds = by_signature.setdefault(self._grid.composer.signature(run.overrides), (run, []))
                    kinds += [kind] if kind not in kinds else []
        return [
            PlannedRun(overrides=tuple(self._grid.lines(run)), tuning=tuple(kinds))
            for run, kinds in by_signature.values()
        ]

    def _best(self, jobs: Mapping[int, Job]) -> dict[Group, Values | None]:
        """Return, by group, the values of its completed trial with the highest score (first of equals), or None."""
        best: dict[Group, tuple[float, Values]] = {}
        for number, (group, values) in enumerate(self._in_order()):
            job = jobs.get(number)
            if job is None or job.status != "completed" or job.score is None:
                continue
            if group not in best or job.score > best[group][0]:
                best[group] = job.score, values
        return {group: best[group][1] if group in best else None for group in self._groups}

    def _told(self, best: Mapping[Group, Values | None]) -> list[str]:
        """Return the notes on the tuning for the report."""
        of = ", ".join(self.tuning.by)
        notes = [
            f"Tuned: the best of {self.tuning.trials} trials ({self.tuning.search}) per {of}, on seed "
            f"{self.tuning.seed} and {self.tuning.holdout} held-out training rows; no reported number has seen either."
        ]
        for group, values in best.items():
            what = (
                ", ".join(f"{key} {as_text(value)}" for key, value in values.items()) if values else "no trial is done"
            )
            notes.append(f"Tuned: {' '.join(group)}: {what}")
        return notes

    def _in_order(self) -> list[tuple[Group, Values]]:
        return [(group, values) for group, points in self._points.items() for values in points]

    def _group(self, grid_point: GridPoint) -> Group:
        return self._grid.values(grid_point, self.tuning.by)

    def _trial(self, grid_point: GridPoint, values: Values) -> PlannedRun:
        """Return the trial of `values` for the group of `grid_point`, on the tuning seed and the held-out rows."""
        seed = {"seed": as_text(self.tuning.seed)}
        holdout = {"task.holdout": as_text(self.tuning.holdout)}
        trial = GridPoint(
            raw={**grid_point.raw, **seed}, overrides={**_with(grid_point.overrides, values), **seed, **holdout}
        )
        return PlannedRun(overrides=tuple(self._grid.lines(trial)), tuning=("trial",))

    def _values(self, grid_points: Sequence[GridPoint]) -> list[Values]:
        """Return the points to try for the runs of one group."""
        spaces = [self._space(grid_point) for grid_point in grid_points]
        if any(space is not spaces[0] for space in spaces):
            raise ValueError(
                f"`tuning.space` has several rules for the runs of one group "
                f"({' '.join(self._group(grid_points[0]))}): add what tells them apart to `tuning.by`"
            )
        if set_here := sorted(set(spaces[0].axes) & self._grid.given_keys):
            raise ValueError(f"`{set_here[0]}` is tuned and set on the command line: drop it there, or say tuning=null")
        if self.tuning.search == "grid":
            return spaces[0].grid(self.tuning.trials)
        return spaces[0].draw(self.tuning.trials, seed=self.tuning.seed)

    def _space(self, grid_point: GridPoint) -> Space:
        """Return the first space whose `when` matches a run."""
        for space in self.tuning.space:
            if matches(space.when, lambda key: self._grid.composer.value(grid_point.overrides, key)):
                return space
        raise ValueError(
            f"no rule of `tuning.space` is for `{' '.join(self._grid.lines(grid_point))}`: end with one without `when`"
        )

    def _check_by(self) -> None:
        """Raise a ValueError for a key of `tuning.by` that no run has; a key that only some methods have is fine."""
        composer, grid_points = self._grid.composer, self._grid.grid_points
        for key in self.tuning.by:
            if all(composer.value(grid_point.overrides, key) is ABSENT for grid_point in grid_points):
                raise ValueError(
                    f"`{key}` in `tuning.by` is not a key of any run, "
                    f"as of `{' '.join(self._grid.lines(grid_points[0]))}`"
                )

    def _check_seeds(self) -> None:
        reported = sorted(
            {int(self._grid.composer.value(grid_point.overrides, "seed")) for grid_point in self._grid.grid_points}
        )
        if self.tuning.seed in reported:
            raise ValueError(
                f"`tuning.seed` (={self.tuning.seed}) is one of the reported seeds ({', '.join(map(str, reported))}): "
                "numbers tuned on a reported seed are not comparable; take another"
            )


def make_tuner(config: DictConfig, grid: Grid) -> Tuner | None:
    """Return the tuner of the config node `tuning`; None without the node."""
    node = config.get("tuning")
    if node is None:
        return None
    plain = OmegaConf.to_container(node, resolve=False) if OmegaConf.is_config(node) else node
    if not isinstance(plain, Mapping):
        raise ValueError(f"`tuning` (={plain}) must be null or a mapping with seed, holdout, trials and space")
    return Tuner(Tuning.parse(cast("dict[str, Any]", plain)), grid)


def _with(overrides: Overrides, values: Values) -> Overrides:
    return {**overrides, **{key: as_text(value) for key, value in values.items()}}
