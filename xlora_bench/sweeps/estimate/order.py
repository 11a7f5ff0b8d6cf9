"""In which order the jobs of a sweep start."""

import logging
from collections.abc import Sequence
from typing import Any, cast

from hydra.core.config_loader import ConfigLoader
from omegaconf import DictConfig, OmegaConf

log = logging.getLogger(__name__)

DECISIVE = ("task", "model", "trainer", "adapter", "paths")
"""Keys that change how long a cell takes; of `adapter` only which it is."""


def longest_first(jobs: Sequence[Sequence[str]], *, config: DictConfig, loader: ConfigLoader) -> list[int]:
    """Return the places of `jobs` in the order in which to start them: by falling cost, equal ones as given.

    A long job that starts last keeps one worker busy while the others wait. Where a cost is not known, or all are the
    same, the order is the given one.
    """
    kinds = [tuple(override for override in overrides if _decides(override)) for overrides in jobs]
    given = list(range(len(jobs)))
    if len(set(kinds)) < 2:
        return given
    try:
        costs = {kind: cost(loader.load_sweep_config(config, list(kind))) for kind in dict.fromkeys(kinds)}
    except Exception as error:  # the job itself says it better
        log.debug("the cost of the jobs is not known: %s", error)
        return given
    return sorted(given, key=lambda place: -costs[kinds[place]])


def cost(config: DictConfig) -> float:
    """Return the floating-point operations of training the cell of `config`.

    Raises:
        ValueError: if the size of its task or model is not known.
    """
    from xlora_bench.sweeps.estimate.costs import cost_of, passes_of  # noqa: PLC0415 - they import torch
    from xlora_bench.sweeps.estimate.sizes import encoder_of, rows_of  # noqa: PLC0415

    names = ("task", "model", "trainer", "adapter", "paths")
    plain = {name: cast("dict[str, Any]", OmegaConf.to_container(config[name], resolve=True)) for name in names}
    rows, encoder = rows_of(plain), encoder_of(plain["model"])
    if rows is None or encoder is None:
        raise ValueError("the size of the task or of the model is not known")
    tokens = cost_of(plain, rows, encoder, measured=1.0).tokens or 0
    return passes_of(plain) * tokens * encoder.flops_per_token(rows.tokens)


def _decides(override: str) -> bool:
    key = override.partition("=")[0]
    return key.partition(".")[0].partition("@")[0] in DECISIVE and not key.startswith("adapter.")
