"""Composer of the configs of a sweep: Hydra composes each group choice once; other overrides are applied to copies."""

import copy
from collections.abc import Mapping
from typing import Any, cast

from hydra.core.config_loader import ConfigLoader
from hydra.core.object_type import ObjectType
from omegaconf import DictConfig, OmegaConf

from xlora_bench.results.frame.collect import naming_choices
from xlora_bench.runs.config_hash import config_hash
from xlora_bench.runs.grid_rules import ABSENT
from xlora_bench.runs.hydra_internals import apply_overrides
from xlora_bench.runs.overrides import as_lines, parsed
from xlora_bench.training.budget.options import with_budget

Choice = tuple[str, ...]


class Composer:
    """Configs of runs with the primary `config`, cached by overrides; equal to those of Hydra's `load_sweep_config`."""

    def __init__(self, config: DictConfig, loader: ConfigLoader) -> None:
        self._config = config
        self._loader = loader
        self._bases: dict[Choice, tuple[DictConfig, dict[str, Any]]] = {}
        self._runs: dict[Choice, DictConfig] = {}
        self._groups: dict[str, bool] = {}
        self._signatures: dict[Choice, str] = {}

    def config(self, overrides: Mapping[str, str]) -> DictConfig:
        """Return the config of a run without the node `hydra`; do not modify it, it is cached.

        Raises:
            ConfigCompositionException: if an override does not fit the config.
        """
        lines = as_lines(overrides)
        cache_key = tuple(lines)
        if cache_key not in self._runs:
            base, _ = self._base(lines)
            run = copy.deepcopy(base)
            values = [parsed(line) for line in lines if not self._is_group(line)]
            apply_overrides(values, run)
            self._runs[cache_key] = run
        return self._runs[cache_key]

    def resolved(self, overrides: Mapping[str, str]) -> dict[str, Any]:
        """Return the config of a run as plain values."""
        return cast("dict[str, Any]", OmegaConf.to_container(self.config(overrides), resolve=True))

    def choices(self, overrides: Mapping[str, str]) -> dict[str, Any]:
        """Return the choice of every config group."""
        return self._base(as_lines(overrides))[1]

    def value(self, overrides: Mapping[str, str], key: str) -> Any:
        """Return a group's choice or the value of a dotted key; `ABSENT` if the config has no such key."""
        choices = self.choices(overrides)
        if key in choices:
            return choices[key]
        seed = {} if key == "seed" else {"seed"}
        rest = {name: text for name, text in overrides.items() if name not in seed}
        node = OmegaConf.select(self.config(rest), key, default=ABSENT)
        return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node

    def signature(self, overrides: Mapping[str, str]) -> tuple[str, str, str | None]:
        """Return what equal runs have in common: config hash without seed and data, group choices, and seed."""
        rest = {name: text for name, text in overrides.items() if name != "seed"}
        cache_key = tuple(as_lines(rest))
        if cache_key not in self._signatures:
            self._signatures[cache_key] = config_hash(self.resolved(rest), data="")
        names = str(
            sorted(
                with_budget(self.config(rest).get("budget"), choices=naming_choices(self.choices(overrides))).items()
            )
        )
        return self._signatures[cache_key], names, overrides.get("seed")

    def _base(self, lines: list[str]) -> tuple[DictConfig, dict[str, Any]]:
        chosen = tuple(line for line in lines if self._is_group(line))
        if chosen not in self._bases:
            composed = self._loader.load_sweep_config(self._config, list(chosen))
            choices = dict(composed.hydra.runtime.choices)
            OmegaConf.set_struct(composed, False)
            del composed["hydra"]
            OmegaConf.set_struct(composed, True)
            self._bases[chosen] = composed, choices
        return self._bases[chosen]

    def _is_group(self, line: str) -> bool:
        override = parsed(line)
        group = override.key_or_group
        if group not in self._groups:
            name = str(self._config.hydra.job.config_name)
            options = self._loader.get_group_options(group, results_filter=ObjectType.CONFIG, config_name=name)
            self._groups[group] = bool(options)
        return self._groups[group] and not isinstance(override.value(), dict)
