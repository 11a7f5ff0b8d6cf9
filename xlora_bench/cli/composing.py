"""Compose configs as the main job does, for subcommands that write no files of Hydra's."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from xlora_bench.runs.config_folder import CONFIGS
from xlora_bench.runs.overrides import as_text
from xlora_bench.runs.plain_config import refuse_environment

PRIMARY = "config"


class Composer:
    """Composes the primary config with overrides, with the groups in a folder of the user beside the program's own."""

    def __init__(self, config_dir: Path | None) -> None:
        self.search = [] if config_dir is None else [f"hydra.searchpath={as_text([f'file://{config_dir.absolute()}'])}"]

    def composed(self, overrides: Sequence[str]) -> dict[str, Any]:
        """Return the resolved config; raise a ValueError if it reads an environment variable outside of its paths."""
        config = compose(PRIMARY, overrides=[*self.search, *overrides])
        refuse_environment(config)
        plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
        return plain

    def choices(self, group: str) -> list[str]:
        """Return the choices of a config group, without its shared parts (`_*.yaml`)."""
        loader = GlobalHydra.instance().config_loader()
        names = loader.get_group_options(group, config_name=PRIMARY, overrides=self.search)
        return [name for name in names if not name.startswith("_")]


@contextmanager
def composing(config_dir: Path | None) -> Iterator[Composer]:
    """Give a composer within a `with` block.

    Raises:
        ValueError: if `config_dir` is no folder.
    """
    if config_dir is not None and not config_dir.is_dir():
        raise ValueError(f"`--config-dir` (={config_dir}) is no folder; it holds groups, such as adapter/mine.yaml")
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        yield Composer(config_dir)


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the overrides and `--config-dir` to the arguments of a subcommand."""
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="overrides of the config, as for a run")
    parser.add_argument("--config-dir", type=Path, metavar="DIR", help="a folder of yours with config groups")


def is_given(key: str, overrides: Sequence[str]) -> bool:
    """Return whether the overrides choose or change `key`: a group, or a key in it."""
    keys = (override.lstrip("+~").partition("=")[0].partition("@")[0] for override in overrides)
    return any(given == key or given.startswith(f"{key}.") for given in keys)


def import_from_working_folder() -> None:
    """Let modules in the working folder be imported, after all installed ones."""
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.append(folder)
