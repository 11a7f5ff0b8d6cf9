"""Resolve a config into a run request: options, budget, data, parent run. No model weights are loaded."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.conf import HydraConf
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from xlora_bench.data.corpus import Corpus, cached_corpus
from xlora_bench.models import weight_cache
from xlora_bench.runs.hydra_internals import compose_like
from xlora_bench.runs.overrides import parent_overrides
from xlora_bench.runs.run import Run, writable
from xlora_bench.training.budget.solve import solve_budget
from xlora_bench.training.caches import Caches
from xlora_bench.training.start_from import check_parent

PARTS = ("model", "adapter", "init_scheme", "targets", "task", "optimizer", "scheduler")
"""The config groups of a run; each one names a class of options."""

RUN = {"trainer", "logger", "seed", "start_from", "rerun", "budget", "monitor", "paths"}
SWEEP = {"grid", "tuning", "paper"}
KEYS = {*PARTS, *RUN, *SWEEP}
"""Every top-level key of a config."""


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """A run, its option objects by group, its rows and tokens, the caches, and its parent's request, if any."""

    run: Run
    parts: Mapping[str, Any]
    corpus: Corpus
    caches: Caches
    parent: "RunRequest | None" = None


def resolve(
    config: DictConfig, *, choices: dict[str, str], overrides: Sequence[str], hydra: HydraConf, caches: Caches
) -> RunRequest:
    """Return the request of the run of `config`, which was composed from `overrides`, with those of its parents.

    The budget is solved on a copy of the config.

    Raises:
        ValueError: if an option is wrong or the parent's adapter does not fit.
    """
    config = copy.deepcopy(config)
    choices = solve_budget(config, choices=choices, overrides=overrides)
    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    check_keys(plain)
    parts = {name: instantiate(plain[name]) for name in PARTS}
    writable(Path(plain["paths"]["results_dir"]).expanduser())
    parent = None
    if plain.get("start_from"):
        lines = parent_overrides(overrides, start_from=plain["start_from"])
        parents_config, parents_choices = compose_like(hydra, lines)
        parent = resolve(parents_config, choices=parents_choices, overrides=lines, hydra=hydra, caches=caches)
        check_parent(plain, parent.run.config)
    return request_of(plain, parts, choices=choices, caches=caches, parent=parent)


def request_of(
    config: dict[str, Any],
    parts: Mapping[str, Any],
    *,
    choices: dict[str, str],
    caches: Caches,
    parent: RunRequest | None = None,
) -> RunRequest:
    """Return the request of the run of a resolved `config` with the option objects `parts`; reads the data."""
    paths = config["paths"]
    corpus = cached_corpus(
        parts["task"],
        caches.corpora,
        tokenizer=weight_cache.tokenizer(parts["model"], caches.tokenizers),
        cache_dir=Path(paths["cache_dir"]).expanduser(),
        data_dir=Path(paths["data_dir"]).expanduser() if paths["data_dir"] else None,
    )
    run = Run.of(
        config,
        choices=choices,
        data=corpus.fingerprint,
        results_dir=Path(paths["results_dir"]).expanduser(),
        parent=parent.run.id if parent else None,
    )
    return RunRequest(run=run, parts=parts, corpus=corpus, caches=caches, parent=parent)


def check_keys(plain: Mapping[str, Any]) -> None:
    """Raise a ValueError for an unknown top-level key, such as a mistyped `+key=value`, or a non-integer seed."""
    if unknown := sorted(plain.keys() - KEYS):
        raise ValueError(f"`{unknown[0]}` is not a key of the config; it has: {', '.join(sorted(KEYS))}")
    if not isinstance(plain["seed"], int):
        raise ValueError(f"`seed` (={plain['seed']!r}) must be a whole number; several seeds need -m")
