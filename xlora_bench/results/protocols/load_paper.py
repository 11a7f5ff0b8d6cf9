"""Load a paper of `conf/paper/` by name, for tables of recorded runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from xlora_bench.results.protocols.paper import Paper
from xlora_bench.runs.config_folder import CONFIGS


def load_paper(name: str, *, config_dir: Path | None = None) -> Paper:
    """Return the paper in `paper/<name>.yaml` of our configs or of `config_dir`.

    Raises:
        ValueError: if there is no such file, or it has no node `paper`.
    """
    folder = CONFIGS if config_dir is None else config_dir.resolve()
    known = sorted(path.stem for path in (folder / "paper").glob("[!_]*.yaml"))
    if name not in known:
        where = "" if config_dir is None else f" in {config_dir}"
        raise ValueError(f"`--paper {name}` is not one of the papers{where}: {', '.join(known)}")
    node = compose_paper(name, [f"hydra.searchpath=[file://{CONFIGS}]"] * (folder != CONFIGS), folder=folder).get(
        "paper"
    )
    if node is None:
        raise ValueError(f"`--paper {name}` holds no published table; leave it out")
    return Paper.parse(cast("dict[str, Any]", OmegaConf.to_container(node, resolve=True)))


def compose_paper(name: str, overrides: Sequence[str] = (), *, folder: Path = CONFIGS) -> DictConfig:
    """Compose the config `paper/<name>` of a config folder with `overrides`, as the command line does."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(folder), version_base="1.3"):
        return compose(f"paper/{name}", overrides=list(overrides))
