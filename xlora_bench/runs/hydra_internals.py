"""The only file that imports Hydra's internal modules.

Hydra has no public function that composes a config with the search path of a running job, applies parsed overrides
to a composed config, or gives its sweeper class to inherit from. `hydra.compose` starts a new global Hydra instead.
Its loader composes every job of a sweep anew, which takes 90 to 190 ms.
"""

import copy
from collections.abc import Sequence
from typing import Any, NoReturn

from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra._internal.utils import get_args_parser
from hydra.conf import HydraConf
from hydra.core.config_loader import ConfigLoader
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from xlora_bench.runs.overrides import parsed

Lines = tuple[str, ...]


def compose_like(hydra: HydraConf, overrides: Sequence[str]) -> tuple[DictConfig, dict[str, str]]:
    """Compose the primary config of a running job with other overrides; return the config and its group choices."""
    search = ConfigSearchPathImpl()
    for source in hydra.runtime.config_sources:
        search.append(source.provider, f"{source.schema}://{source.path}")
    config = ConfigLoaderImpl(search).load_configuration(
        hydra.job.config_name, [*hydra.overrides.hydra, *overrides], run_mode=RunMode.RUN
    )
    choices = {group: str(choice) for group, choice in config.hydra.runtime.choices.items() if "/" not in group}
    OmegaConf.set_struct(config, False)
    del config["hydra"]
    return config, choices


class SweepLoader(ConfigLoaderImpl):
    """Config loader of one sweep: composes each combination of group choices once, and changes copies of the result.

    `load_sweep_config` returns what Hydra's own loader does.
    """

    def __init__(self, loader: ConfigLoader) -> None:
        super().__init__(loader.get_search_path())
        self._bases: dict[Lines, DictConfig] = {}
        self._groups: dict[str, bool] = {}

    @classmethod
    def of(cls, loader: ConfigLoader) -> "SweepLoader":
        """Return `loader` itself if it is of this class, else one with its search path."""
        return loader if isinstance(loader, cls) else cls(loader)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the composed configs: workers receive the configs of their jobs."""
        return {**vars(self), "_bases": {}}

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        """Return the config of a job, with its node `hydra`."""
        lines = list(sweep_overrides)
        overrides = [parsed(line) for line in lines]
        if any(override.is_hydra_override() for override in overrides):
            return super().load_sweep_config(master_config, lines)
        chosen = self.group_choices(master_config, lines)
        if chosen not in self._bases:
            self._bases[chosen] = super().load_sweep_config(master_config, list(chosen))
        config = copy.deepcopy(self._bases[chosen])
        apply_overrides([parsed(line) for line in lines if line not in chosen], config)
        with read_write(config.hydra), open_dict(config.hydra):
            options = config.hydra.job.config.override_dirname
            config.hydra.overrides.task = lines
            config.hydra.job.override_dirname = get_overrides_dirname(
                overrides, exclude_keys=options.exclude_keys, item_sep=options.item_sep, kv_sep=options.kv_sep
            )
        return config

    def group_choices(self, master_config: DictConfig, lines: Sequence[str]) -> Lines:
        """Return those of the overrides `lines` that choose a config of a group."""
        return tuple(line for line in lines if self._is_group(master_config, line))

    def _is_group(self, master_config: DictConfig, line: str) -> bool:
        override = parsed(line)
        group = override.key_or_group
        if group not in self._groups:
            name = str(master_config.hydra.job.config_name)
            options = self.get_group_options(group, results_filter=ObjectType.CONFIG, config_name=name)
            self._groups[group] = bool(options)
        return self._groups[group] and not isinstance(override.value(), dict)


def apply_overrides(overrides: list[Override], config: DictConfig) -> None:
    """Write parsed overrides into a composed config.

    Raises:
        ConfigCompositionException: if an override does not fit the config.
    """
    ConfigLoaderImpl._apply_overrides_to_config(overrides, config)


def option_problem(arguments: Sequence[str]) -> str | None:
    """Return what Hydra's parser finds wrong with the options of a command line, None if nothing."""

    def fail(message: str) -> NoReturn:
        raise ValueError(message)

    parser = get_args_parser()
    parser.error = fail  # type: ignore[method-assign]
    try:
        parser.parse_args(list(arguments))
    except ValueError as problem:
        return str(problem)
    return None


def is_basic_launcher(launcher: object) -> bool:
    """Return whether `launcher` is Hydra's own, by its name: Hydra's plugin search executes its module again."""
    return type(launcher).__name__ == "BasicLauncher"


def basic_sweeper() -> Any:
    """Return the class of Hydra's own sweeper.

    Imported only when called: Hydra's plugin search executes the module again, and a class from the first execution no
    longer works after that.
    """
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper  # noqa: PLC0415 - see above

    return BasicSweeper
