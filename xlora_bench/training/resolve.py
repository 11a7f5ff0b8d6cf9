"""Resolve a config into a run request: options, budget, data, parent run. No model weights are loaded."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.conf import HydraConf
from omegaconf import DictConfig

from xlora_bench.data.corpus import Corpus, cached_corpus
from xlora_bench.data.task import TextTask
from xlora_bench.models import weight_cache
from xlora_bench.runs.hydra_internals import compose_like
from xlora_bench.runs.overrides import parent_overrides
from xlora_bench.runs.plain_config import plain_config
from xlora_bench.runs.run import Run, writable
from xlora_bench.system.options import OptionsError, fault
from xlora_bench.training.budget.options import Budget
from xlora_bench.training.budget.solve import solve_budget
from xlora_bench.training.caches import Caches
from xlora_bench.training.options import GROUPS, PARTS, GroupCheck, check_config, check_group
from xlora_bench.training.preflight import preflight
from xlora_bench.training.start_from import check_parent
from xlora_bench.training.trust import SEVERAL


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
    checked = check_run(
        plain_config(config),
        composed=lambda: copy.deepcopy(config),
        choices=choices,
        overrides=overrides,
        caches=caches,
    )
    if checked.faults:
        raise OptionsError(checked.faults)
    plain, choices = checked.config, checked.choices
    parts = {name: checked.objects[name] for name in PARTS}
    writable(Path(plain["paths"]["results_dir"]).expanduser())
    parent = None
    if plain.get("start_from"):
        lines = parent_overrides(overrides, start_from=plain["start_from"])
        parents_config, parents_choices = compose_like(hydra, lines)
        try:
            parent = resolve(parents_config, choices=parents_choices, overrides=lines, hydra=hydra, caches=caches)
        except OptionsError as error:
            raise OptionsError(of_parent(error.faults)) from error
        check_parent(plain, parent.run.config)
    return request_of(plain, parts, choices=choices, caches=caches, parent=parent)


def of_parent(faults: Sequence[str]) -> list[str]:
    """Return the faults of a parent run as those of the run that starts from it."""
    return [f"{fault} (in the parent run)" for fault in faults]


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
    check_rows(corpus, task=parts["task"], devices=config["trainer"].get("devices", 1))
    run = Run.of(
        config,
        choices=choices,
        data=corpus.fingerprint,
        results_dir=Path(paths["results_dir"]).expanduser(),
        parent=parent.run.id if parent else None,
    )
    return RunRequest(run=run, parts=parts, corpus=corpus, caches=caches, parent=parent)


def check_rows(corpus: Corpus, *, task: TextTask, devices: int) -> None:
    """Check that each of several devices has a row of every split that is evaluated.

    Raises:
        OptionsError: otherwise.
    """
    if devices == 1:
        return
    for split in task.eval_splits:
        if (rows := len(corpus.splits[split])) < devices:
            rule = f"must be at most {rows}, the rows of split {split}; lower it"
            raise OptionsError([fault("trainer.devices", devices, rule)])


@dataclass(frozen=True, kw_only=True)
class CheckedRun:
    """A plain config with its solved budget, the objects that its groups name, its choices, and a line per fault."""

    config: dict[str, Any]
    objects: Mapping[str, Any]
    choices: dict[str, str]
    faults: list[str]


def check_run(
    config: dict[str, Any],
    *,
    composed: Callable[[], DictConfig],
    choices: Mapping[str, str],
    overrides: Sequence[str],
    caches: Caches,
    starts_here: bool = True,
    check: GroupCheck = check_group,
) -> CheckedRun:
    """Check all that can be known about the run of a plain `config` before a weight is loaded; nothing is written.

    `composed` gives the config with its interpolations, in which a budget sets the rank; `check` checks one group.
    `starts_here=False`: see `preflight`.
    """
    solved = dict(choices)
    faults = [
        f"`{group}` takes one choice; a sweep over several needs -m and {group}=lora,lu, without brackets"
        for group in GROUPS
        if group in config and group not in choices and group not in SEVERAL
    ]
    objects, wrong = check_config(config, check)
    faults = faults or wrong
    try:
        if not faults and Budget.parse(config.get("budget")) is not None:
            with_rank = composed()
            solved = solve_budget(with_rank, choices=choices, overrides=overrides)
            config = plain_config(with_rank)
            objects, faults = check_config(config, check)
    except ValueError as error:
        faults = str(error).splitlines()
    faults = faults or preflight(config, objects, caches, starts_here=starts_here)
    return CheckedRun(config=config, objects=objects, choices=solved, faults=faults)
