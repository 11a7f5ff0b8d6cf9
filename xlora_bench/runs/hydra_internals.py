"""The only file that imports Hydra's internal modules.

Hydra has no public function that composes a config with the search path of a running job, applies parsed overrides
to a composed config, or gives its sweeper class to inherit from. `hydra.compose` starts a new global Hydra instead.
"""

from collections.abc import Sequence
from typing import Any, NoReturn

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra._internal.utils import get_args_parser
from hydra.conf import HydraConf
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf


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


def basic_sweeper() -> Any:
    """Return the class of Hydra's own sweeper.

    Imported only when called: Hydra's plugin search executes the module again, and a class from the first execution no
    longer works after that.
    """
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper  # noqa: PLC0415 - see above

    return BasicSweeper
