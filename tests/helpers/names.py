"""What the config groups offer, read from the files, so that a new YAML is tested the day it appears."""

from functools import cache
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from xlora_bench.training.trust import part_of

ROOT = Path(__file__).resolve().parents[2]
CONF = ROOT / "conf"


def choices(group: str) -> list[str]:
    """Return the choices of a config group, without its shared parts (`_*.yaml`)."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml") if not path.stem.startswith("_"))


@cache
def configured(*overrides: str) -> DictConfig:
    """Return the primary config as the command line would compose it."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", overrides=list(overrides))


@cache
def part(group: str, choice: str, *overrides: str) -> object:
    """Return the object that a config group's choice names."""
    config = OmegaConf.to_container(configured(f"{group}={choice}", *overrides), resolve=True)
    return part_of(config[group])
