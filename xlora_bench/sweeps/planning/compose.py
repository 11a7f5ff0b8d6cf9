"""Composer of the configs of a sweep: Hydra composes each group choice once; other overrides are applied to copies."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from hydra.core.config_loader import ConfigLoader
from omegaconf import DictConfig, OmegaConf

from xlora_bench.results.frame.collect import naming_choices
from xlora_bench.runs.config_hash import config_hash
from xlora_bench.runs.grid_rules import ABSENT
from xlora_bench.runs.hydra_internals import Lines, SweepLoader, apply_overrides
from xlora_bench.runs.overrides import as_lines, parsed
from xlora_bench.runs.plain_config import Change, NotPlainError, interpolations, plain_config, resolved, with_changes
from xlora_bench.training.budget.options import with_budget

Plain = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Base:
    """The config of a combination of group choices, as Hydra composes it and as plain values.

    `places` are its interpolations; None if only OmegaConf can resolve them.
    """

    config: DictConfig
    choices: Mapping[str, Any]
    plain: Plain
    places: Sequence[tuple[tuple[str, ...], str]] | None

    @classmethod
    def of(cls, composed: DictConfig) -> "Base":
        """Return the base of a composed config, without its node `hydra`."""
        choices = dict(composed.hydra.runtime.choices)
        OmegaConf.set_struct(composed, False)
        del composed["hydra"]
        OmegaConf.set_struct(composed, True)
        plain = plain_config(composed, resolve=False)
        try:
            places = list(interpolations(plain))
        except NotPlainError:
            places = None
        return cls(config=composed, choices=choices, plain=plain, places=places)


class Composer:
    """Configs of runs with the primary `config`, cached by overrides; equal to those of Hydra's `load_sweep_config`.

    Do not modify them: they share what they have in common.
    """

    def __init__(self, config: DictConfig, loader: ConfigLoader) -> None:
        self._config = config
        self._loader = SweepLoader.of(loader)
        self._bases: dict[Lines, Base] = {}
        self._resolved: dict[Lines, Plain] = {}
        self._signatures: dict[Lines, tuple[str, str]] = {}

    def config(self, overrides: Mapping[str, str]) -> DictConfig:
        """Return the config of a run without the node `hydra`, interpolations unresolved.

        Raises:
            ConfigCompositionException: if an override does not fit the config.
        """
        chosen, rest = self._split(as_lines(overrides))
        run = copy.deepcopy(self._base(chosen).config)
        apply_overrides([parsed(line) for line in rest], run)
        return run

    def resolved(self, overrides: Mapping[str, str]) -> Plain:
        """Return the config of a run as plain values."""
        lines = tuple(as_lines(overrides))
        if lines not in self._resolved:
            try:
                self._resolved[lines] = self._plain(lines)
            except NotPlainError:
                self._resolved[lines] = plain_config(self.config(overrides))
        return self._resolved[lines]

    def choices(self, overrides: Mapping[str, str]) -> Mapping[str, Any]:
        """Return the choice of every config group."""
        return self._base(self._split(as_lines(overrides))[0]).choices

    def value(self, overrides: Mapping[str, str], key: str) -> Any:
        """Return a group's choice or the value of a dotted key; `ABSENT` if the config has no such key."""
        choices = self.choices(overrides)
        if key in choices:
            return choices[key]
        node: Any = self.resolved(overrides)
        for part in key.split("."):
            if not isinstance(node, dict) or part not in node:
                return ABSENT
            node = node[part]
        return node

    def signature(self, overrides: Mapping[str, str]) -> tuple[str, str, str | None]:
        """Return what equal runs have in common: config hash without seed and data, group choices, and seed."""
        rest = {name: text for name, text in overrides.items() if name != "seed"}
        lines = tuple(as_lines(rest))
        if lines not in self._signatures:
            config = self.resolved(rest)
            names = with_budget(config.get("budget"), choices=naming_choices(self.choices(rest)))
            self._signatures[lines] = config_hash(config, data=""), str(sorted(names.items()))
        return *self._signatures[lines], overrides.get("seed")

    def _plain(self, lines: Lines) -> Plain:
        """Return the resolved config; raise a `NotPlainError` if only OmegaConf can make it."""
        chosen, rest = self._split(lines)
        base = self._base(chosen)
        if base.places is None:
            raise NotPlainError
        return resolved(with_changes(base.plain, map(change_of, rest)), base.places)

    def _split(self, lines: Sequence[str]) -> tuple[Lines, list[str]]:
        """Return the overrides that choose a config of a group, and the others."""
        chosen = self._loader.group_choices(self._config, lines)
        return chosen, [line for line in lines if line not in chosen]

    def _base(self, chosen: Lines) -> Base:
        if chosen not in self._bases:
            self._bases[chosen] = Base.of(self._loader.load_sweep_config(self._config, list(chosen)))
        return self._bases[chosen]


@cache
def change_of(line: str) -> Change:
    """Return the key and the value of an override that sets one existing key.

    Raises:
        NotPlainError: for any other override, and for one with an interpolation.
    """
    override = parsed(line)
    if override.is_add() or override.is_force_add() or override.is_delete() or override.package or "${" in line:
        raise NotPlainError
    return tuple(override.key_or_group.split(".")), override.value()
