"""Load a paper of `conf/paper/` by name, for tables of recorded runs."""

from collections.abc import Sequence
from typing import Any, cast

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from xlora_bench.results.protocols.paper import Paper
from xlora_bench.runs.config_folder import CONFIGS


def load_paper(name: str) -> Paper:
    """Return the paper in `conf/paper/<name>.yaml`.

    Raises:
        ValueError: if there is no such file, or it has no node `paper`.
    """
    known = sorted(path.stem for path in (CONFIGS / "paper").glob("[!_]*.yaml"))
    if name not in known:
        raise ValueError(f"`--paper {name}` is not one of the papers: {', '.join(known)}")
    node = compose_paper(name).get("paper")
    if node is None:
        raise ValueError(f"`--paper {name}` holds no published table; leave it out")
    return Paper.parse(cast("dict[str, Any]", OmegaConf.to_container(node, resolve=True)))


def compose_paper(name: str, overrides: Sequence[str] = ()) -> DictConfig:
    """Compose the config `paper/<name>` with `overrides`, as the command line does."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return compose(f"paper/{name}", overrides=list(overrides))
