"""The cells of a sweep: the Cartesian product of its lists, then the rules of `grid:`."""

import difflib
import itertools
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from xlora_bench.runs.grid_rules import ABSENT, Rule, parse_rules
from xlora_bench.runs.overrides import START_FROM, Overrides, as_lines, as_text, from_lines, listed, parsed
from xlora_bench.sweeps.planning.compose import Composer

log = logging.getLogger(__name__)

DEEPEST = 4
"""How many cells may stand between a cell and the one that starts from the pretrained weights."""


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A cell after the rules: its place `raw` in the Cartesian product, and its `overrides`."""

    raw: Overrides
    overrides: Overrides


@dataclass(frozen=True, kw_only=True)
class Excluded:
    """A cell that a rule leaves out, and why."""

    overrides: Overrides
    reason: str


class Grid:
    """The cells of the sweep of a primary `config`, narrowed by the `arguments` of the command line.

    Raises:
        ValueError: if a rule is malformed, or names a key that no cell has.
    """

    def __init__(self, config: DictConfig, loader: ConfigLoader, *, arguments: Sequence[str]) -> None:
        self.composer = Composer(config, loader)
        self.said = {parsed(argument).get_key_element() for argument in arguments}
        node = OmegaConf.to_container(config.get("grid") or OmegaConf.create([]), resolve=False)
        self.rules = parse_rules(node)
        self.excluded: list[Excluded] = []
        self._reached: set[int] = set()
        params = config.hydra.sweeper.get("params") or {}
        raw = _product([f"{key}={params[key]}" for key in params] + list(arguments), loader)
        drafts = [draft for cell in raw for draft in self._drafts(cell)]
        self._check_keys(raw)
        self.drafts = self.distinct(drafts)

    def distinct(self, drafts: Iterable[Draft]) -> list[Draft]:
        """Return the drafts without those that are the same cell as an earlier one.

        Raises:
            ConfigCompositionException: if a cell cannot be composed.
        """
        found: dict[object, Draft] = {}
        for draft in drafts:
            found.setdefault(self.composer.signature(draft.overrides), draft)
        return list(found.values())

    def lines(self, draft: Draft) -> list[str]:
        """Return the overrides of a draft as Hydra's launchers take them, its parent spelled out."""
        return as_lines(self.with_parent(draft).overrides)

    def with_parent(self, draft: Draft, *, depth: int = 0) -> Draft:
        """Return `draft` with `start_from` holding all that makes its parent from it, whatever rules were at work.

        Raises:
            ValueError: if the parent is left out, is several cells, or has no end of parents of its own.
        """
        text = self.composer.value(draft.overrides, START_FROM)
        if text in (None, ABSENT):
            return draft
        parent = self.parent(draft)
        if depth > DEEPEST:
            raise ValueError(
                f"`{START_FROM}` (={as_text(text)}) never ends: the parent starts from a parent too; give its rule a "
                "`when` that the parent does not match"
            )
        whole = self.with_parent(parent, depth=depth + 1).overrides
        own = {key: value for key, value in draft.overrides.items() if key != START_FROM}
        differs = {key: value for key, value in whole.items() if own.get(key) != value}
        for key in own.keys() - whole.keys():
            differs[key] = as_text(self.composer.value(whole, key))
        ordered = {key: differs[key] for key in sorted(differs, key=lambda key: ("." in key, key))}
        return Draft(raw=draft.raw, overrides={**own, START_FROM: as_text(as_lines(ordered))})

    def parent(self, draft: Draft) -> Draft:
        """Return the cell that `draft` starts from: its place in the grid, changed, and the rules again."""
        changes = from_lines(self.changes(draft.overrides))
        raw = {key: value for key, value in draft.raw.items() if key != START_FROM} | changes
        found = list(self._apply(raw, said=self.said - {START_FROM} | set(changes)))
        if len(found) != 1 or isinstance(found[0], Excluded):
            what = "left out by a rule" if found and isinstance(found[0], Excluded) else f"{len(found)} cells"
            raise ValueError(
                f"the parent of `{' '.join(as_lines(draft.raw))}` ({', '.join(as_lines(changes))}) is {what}"
            )
        return found[0]

    def changes(self, overrides: Overrides) -> list[str]:
        """Return the overrides that make a cell's parent, as the cell states them."""
        value = self.composer.value(overrides, START_FROM)
        return listed(as_text(value))

    def values(self, draft: Draft, keys: Iterable[str]) -> tuple[str, ...]:
        """Return the values of some keys of a draft as text, to tell groups of drafts apart."""
        return tuple(_show(self.composer.value(draft.overrides, key)) for key in keys)

    def warn_of_idle_rules(self) -> None:
        """Warn of a rule that no cell and no parent matches, unless it is the command line that narrowed the sweep."""
        for rule in self.rules:
            if rule.number not in self._reached and not self.said & set(rule.when):
                log.warning("%s matches no cell: when %s", rule.name, dict(rule.when))

    def _drafts(self, raw: Overrides) -> Iterator[Draft]:
        for found in self._apply(raw, said=self.said):
            if isinstance(found, Excluded):
                self.excluded.append(found)
            else:
                yield found

    def _apply(self, raw: Overrides, *, said: set[str]) -> Iterator[Draft | Excluded]:
        """Yield what the rules make of one cell of the product."""
        cells = [dict(raw)]
        for rule in self.rules:
            after: list[Overrides] = []
            for cell in cells:
                if not self._matches(rule, cell):
                    after.append(cell)
                elif rule.exclude:
                    yield Excluded(overrides=cell, reason=rule.exclude)
                else:
                    after += _changed(cell, rule, said)
            cells = after
        yield from (Draft(raw=raw, overrides=cell) for cell in cells)

    def _matches(self, rule: Rule, cell: Overrides) -> bool:
        found = rule.matches(lambda key: self.composer.value(cell, key))
        if found:
            self._reached.add(rule.number)
        return found

    def _check_keys(self, raw: Sequence[Overrides]) -> None:
        """Raise a ValueError for a `when` key that no cell of the product has."""
        for rule in self.rules:
            for key in rule.when:
                if all(self.composer.value(cell, key) is ABSENT for cell in _without_seeds(raw)):
                    known = known_keys(self.composer, raw[0])
                    close = difflib.get_close_matches(key, known, n=1)
                    hint = f"did you mean `{close[0]}`?" if close else "`--cfg job` shows every key"
                    raise ValueError(f"`when.{key}` of {rule.name} is not a key of any cell; {hint}")


def known_keys(composer: Composer, overrides: Overrides) -> list[str]:
    """Return the groups and the dotted keys of a cell's config."""
    return [*composer.choices(overrides), *_dotted(composer.resolved(overrides))]


def _dotted(node: Mapping[str, object], prefix: str = "") -> Iterator[str]:
    for key, value in node.items():
        yield f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _dotted(value, f"{prefix}{key}.")


def _changed(cell: Overrides, rule: Rule, said: set[str]) -> list[Overrides]:
    """Return the cells that `set` and `each` make of one; what the command line says stays."""
    settled = {**cell, **{key: as_text(value) for key, value in rule.set.items() if key not in said}}
    axes = [[(key, as_text(value)) for value in values] for key, values in rule.each.items() if key not in said]
    return [{**settled, **dict(chosen)} for chosen in itertools.product(*axes)]


def _product(lines: list[str], loader: ConfigLoader) -> list[Overrides]:
    """Return the cells of the Cartesian product; of a repeated key the last list counts.

    Raises:
        ValueError: for a sweep that is not a list of values.
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


def _without_seeds(cells: Sequence[Overrides]) -> list[Overrides]:
    rest = [{key: value for key, value in cell.items() if key != "seed"} for cell in cells]
    return list({tuple(as_lines(cell)): cell for cell in rest}.values())


def _show(value: object) -> str:
    return "-" if value is ABSENT else as_text(value)
