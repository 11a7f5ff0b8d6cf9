"""Grid of a sweep: the Cartesian product of its override lists, changed by the rules of `grid:`."""

import difflib
import itertools
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf

from xlora_bench.runs.grid_rules import ABSENT, Rule, parse_rules
from xlora_bench.runs.overrides import START_FROM, Overrides, as_lines, as_text, from_lines, listed, parsed
from xlora_bench.runs.plain_config import refuse_environment_in
from xlora_bench.sweeps.planning.compose import Composer

log = logging.getLogger(__name__)

DEEPEST = 4
"""Longest chain of parents between a run and the one that starts from the pretrained weights."""


@dataclass(frozen=True, kw_only=True)
class GridPoint:
    """A run of the grid: its point `raw` of the Cartesian product, and its `overrides` after the rules."""

    raw: Overrides
    overrides: Overrides


@dataclass(frozen=True, kw_only=True)
class Excluded:
    """A run that a rule excludes, and the reason."""

    overrides: Overrides
    reason: str


class Grid:
    """The runs of the sweep of a primary `config`; `arguments` of the command line replace its lists.

    A key given on the command line is not changed by rules. `grid_points` are the distinct runs, `excluded` the others.

    Raises:
        ValueError: if a rule is malformed, or names a key that no run has, or a list reads the environment.
    """

    def __init__(self, config: DictConfig, loader: ConfigLoader, *, arguments: Sequence[str]) -> None:
        self.composer = Composer(config, loader)
        self.given_keys = {parsed(argument).get_key_element() for argument in arguments}
        self.rules = parse_rules(_rule_nodes(config))
        self.excluded: list[Excluded] = []
        self._reached: set[int] = set()
        params = config.hydra.sweeper.get("params") or {}
        unread = OmegaConf.to_container(params) if params else {}
        refuse_environment_in(f"{key}={text}" for key, text in cast("dict[str, Any]", unread).items())
        raw = _product([f"{key}={params[key]}" for key in params] + list(arguments), loader)
        grid_points = [grid_point for run in raw for grid_point in self._grid_points(run)]
        self._check_keys(raw)
        self.grid_points = self.distinct(grid_points)

    def distinct(self, grid_points: Iterable[GridPoint]) -> list[GridPoint]:
        """Return the grid points without those that are the same run as an earlier one.

        Raises:
            ConfigCompositionException: if a run cannot be composed.
        """
        by_signature: dict[object, GridPoint] = {}
        for grid_point in grid_points:
            by_signature.setdefault(self.composer.signature(grid_point.overrides), grid_point)
        return list(by_signature.values())

    def lines(self, grid_point: GridPoint) -> list[str]:
        """Return the overrides of a grid point for Hydra's launchers, with its parent spelled out (`with_parent`)."""
        return as_lines(self.with_parent(grid_point).overrides)

    def with_parent(self, grid_point: GridPoint, *, depth: int = 0) -> GridPoint:
        """Return `grid_point` with a `start_from` that lists all differences of its parent, those by rules included.

        Raises:
            ValueError: if the parent is excluded by a rule, is several runs, or has too many ancestors (`DEEPEST`).
        """
        text = self.composer.value(grid_point.overrides, START_FROM)
        if text in (None, ABSENT):
            return grid_point
        parent = self.parent(grid_point)
        if depth > DEEPEST:
            raise ValueError(
                f"`{START_FROM}` (={as_text(text)}) never ends: the parent starts from a parent too; give its rule a "
                "`when` that the parent does not match"
            )
        whole = self.with_parent(parent, depth=depth + 1).overrides
        own = {key: value for key, value in grid_point.overrides.items() if key != START_FROM}
        differs = {key: value for key, value in whole.items() if own.get(key) != value}
        for key in own.keys() - whole.keys():
            differs[key] = as_text(self.composer.value(whole, key))
        ordered = {key: differs[key] for key in sorted(differs, key=lambda key: ("." in key, key))}
        return GridPoint(raw=grid_point.raw, overrides={**own, START_FROM: as_text(as_lines(ordered))})

    def parent(self, grid_point: GridPoint) -> GridPoint:
        """Return the parent: apply the changes of `start_from` to `grid_point.raw`, then the rules."""
        changes = from_lines(self.changes(grid_point.overrides))
        raw = {key: value for key, value in grid_point.raw.items() if key != START_FROM} | changes
        parents = list(self._apply(raw, given_keys=self.given_keys - {START_FROM} | set(changes)))
        if len(parents) != 1 or isinstance(parents[0], Excluded):
            what = "left out by a rule" if parents and isinstance(parents[0], Excluded) else f"{len(parents)} runs"
            raise ValueError(
                f"the parent of `{' '.join(as_lines(grid_point.raw))}` ({', '.join(as_lines(changes))}) is {what}"
            )
        return parents[0]

    def changes(self, overrides: Overrides) -> list[str]:
        """Return the overrides listed in `start_from` of a run."""
        value = self.composer.value(overrides, START_FROM)
        return listed(as_text(value))

    def values(self, grid_point: GridPoint, keys: Iterable[str]) -> tuple[str, ...]:
        """Return the values of `keys` at a grid point as text (`-`: no such key), by which grid points are grouped."""
        return tuple(_show(self.composer.value(grid_point.overrides, key)) for key in keys)

    def warn_of_idle_rules(self) -> None:
        """Warn of each rule that no run or parent matches, unless the command line sets a key of its `when`."""
        for rule in self.rules:
            if rule.number not in self._reached and not self.given_keys & set(rule.when):
                log.warning("%s matches no run: when %s", rule.name, dict(rule.when))

    def _grid_points(self, raw: Overrides) -> Iterator[GridPoint]:
        for outcome in self._apply(raw, given_keys=self.given_keys):
            if isinstance(outcome, Excluded):
                self.excluded.append(outcome)
            else:
                yield outcome

    def _apply(self, raw: Overrides, *, given_keys: set[str]) -> Iterator[GridPoint | Excluded]:
        """Apply the rules to one run of the product; yield the resulting runs and the excluded ones."""
        runs = [dict(raw)]
        for rule in self.rules:
            after: list[Overrides] = []
            for run in runs:
                if not self._matches(rule, run):
                    after.append(run)
                elif rule.exclude:
                    yield Excluded(overrides=run, reason=rule.exclude)
                else:
                    after += _changed(run, rule, given_keys)
            runs = after
        yield from (GridPoint(raw=raw, overrides=run) for run in runs)

    def _matches(self, rule: Rule, run: Overrides) -> bool:
        matches = rule.matches(lambda key: self.composer.value(run, key))
        if matches:
            self._reached.add(rule.number)
        return matches

    def _check_keys(self, raw: Sequence[Overrides]) -> None:
        """Raise a ValueError for a `when` key that no run of the product has."""
        for rule in self.rules:
            for key in rule.when:
                if all(self.composer.value(run, key) is ABSENT for run in _without_seeds(raw)):
                    known = known_keys(self.composer, raw[0])
                    close = difflib.get_close_matches(key, known, n=1)
                    hint = f"did you mean `{close[0]}`?" if close else "`--cfg job` shows every key"
                    raise ValueError(f"`when.{key}` of {rule.name} is not a key of any run; {hint}")


def _rule_nodes(config: DictConfig) -> object:
    """Return the node `grid` with its lists of rules filled in, and the interpolations within a rule as text."""
    node = config.get("grid")
    if not isinstance(node, ListConfig):
        return node
    return [OmegaConf.to_container(rule) if OmegaConf.is_config(rule) else rule for rule in node]


def known_keys(composer: Composer, overrides: Overrides) -> list[str]:
    """Return the config groups and the dotted keys of a run's config."""
    return [*composer.choices(overrides), *_dotted(composer.resolved(overrides))]


def _dotted(node: Mapping[str, object], prefix: str = "") -> Iterator[str]:
    for key, value in node.items():
        yield f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _dotted(value, f"{prefix}{key}.")


def _changed(run: Overrides, rule: Rule, given_keys: set[str]) -> list[Overrides]:
    """Return the runs that `set` and `each` of a rule make of one run; keys given on the command line stay."""
    settled = {**run, **{key: as_text(value) for key, value in rule.set.items() if key not in given_keys}}
    axes = [[(key, as_text(value)) for value in values] for key, values in rule.each.items() if key not in given_keys]
    return [{**settled, **dict(chosen)} for chosen in itertools.product(*axes)]


def _product(lines: list[str], loader: ConfigLoader) -> list[Overrides]:
    """Return the runs of the Cartesian product; the last list wins if a key is repeated.

    Raises:
        HydraException: for a sweep override that is not a list of values.
    """
    axes: dict[str, list[str]] = {}
    for override in OverridesParser.create(config_loader=loader).parse_overrides(lines):
        key = override.get_key_element()
        if not override.is_sweep_override():
            axes[key] = [override.get_value_element_as_str()]
        elif override.is_discrete_sweep():
            axes[key] = list(override.sweep_string_iterator())
        else:
            raise HydraException(f"`{override.input_line}` is not a list of values; a grid needs one, such as a=1,2")
    names = [key for key in axes if not key.startswith("hydra.")]
    return [dict(zip(names, chosen, strict=True)) for chosen in itertools.product(*(axes[key] for key in names))]


def _without_seeds(runs: Sequence[Overrides]) -> list[Overrides]:
    rest = [{key: value for key, value in run.items() if key != "seed"} for run in runs]
    return list({tuple(as_lines(run)): run for run in rest}.values())


def _show(value: object) -> str:
    return "-" if value is ABSENT else as_text(value)
