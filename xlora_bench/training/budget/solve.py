"""Budget solver: set the rank (and targets) in the config, before the config hash is computed."""

import copy
import logging
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from xlora_bench.adapters.base import Adapter
from xlora_bench.models.checkpoint_files import meta_classifier
from xlora_bench.runs.config_folder import CONFIGS
from xlora_bench.runs.plain_config import plain_config
from xlora_bench.training.budget.costs import (
    ByRank,
    adapter_entries,
    adapter_flops,
    head_size,
    other_entries,
    other_flops,
)
from xlora_bench.training.budget.options import Budget
from xlora_bench.training.budget.target_shapes import Rank, highest_rank, target_modules_of

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class BudgetSolution:
    """The cost nearest to the budget on one target group; `rank` is None if the cost does not depend on it."""

    targets: str
    rank: int | None
    cost: int

    def __str__(self) -> str:
        at = "whatever the rank" if self.rank is None else f"adapter.rank={self.rank}"
        return f"{self.cost:,} (targets={self.targets}, {at})"


def solve_budget(config: DictConfig, *, choices: Mapping[str, str], overrides: Sequence[str]) -> dict[str, str]:
    """Set `adapter.rank` (and `targets`) of `config` to meet `config.budget`; return the updated group choices.

    Call it before interpolations are resolved, so that `adapter.alpha: ${adapter.rank}` follows the solved rank. The
    config hash equals that of a run with the same rank set by hand. Without a budget, `config` stays unchanged.

    Raises:
        ValueError: if the budget cannot be met within its tolerance (the message names the nearest cost on these and
            on other targets), or the command line also sets a rank.
    """
    node = config.get("budget")
    budget = Budget.parse(OmegaConf.to_container(node, resolve=True) if node is not None else None)  # type: ignore[arg-type]
    if budget is None:
        return dict(choices)
    if given := [override for override in overrides if override.lstrip("+").startswith("adapter.rank=")]:
        raise ValueError(f"`{given[0]}` and `budget.{budget.key}` both set the rank: drop one of them")
    if budget.targets is None:
        solutions = [nearest(config, budget, choices["targets"], config.targets)]
    else:
        solutions = fitting(config, budget, budget.targets)
    solution = next((one for one in solutions if budget.within(one.cost)), None)
    if solution is None:
        raise unreachable(config, budget, solutions, adapter=choices["adapter"])
    write(config, solution, changed=budget.targets is not None)
    log.info("budget.%s=%g: %s", budget.key, budget.wanted, solution)
    return {**choices, "targets": solution.targets}


def write(config: DictConfig, solution: BudgetSolution, *, changed: bool) -> None:
    """Write the solution into the config."""
    if solution.rank is not None:
        config.adapter.rank = solution.rank
    if changed:
        config.targets = group(solution.targets)


def nearest(config: DictConfig, budget: Budget, name: str, targets: Any) -> BudgetSolution:
    """Return the rank with the cost nearest to the budget on target group `name`, by bisection over ranks."""
    config_copy = copy.deepcopy(config)
    config_copy.targets = targets
    cost, highest = cost_by_rank(config_copy, budget)
    lowest = 1 if highest is None else cost(1)
    if highest is None or lowest == cost(highest):
        return BudgetSolution(targets=name, rank=None, cost=cost(1))
    above = min(bisect_left(range(1, highest + 1), budget.wanted, key=cost), highest - 1)
    candidates = range(1, highest + 1)[max(above - 1, 0) : above + 1]
    rank = min(candidates, key=lambda rank: abs(cost(rank) - budget.wanted))
    return BudgetSolution(targets=name, rank=rank, cost=cost(rank))


def cost_by_rank(config: DictConfig, budget: Budget) -> tuple[ByRank, int | None]:
    """Return the cost as a function of the rank, and the highest rank (None for a method without a rank)."""
    plain = plain_config(config)
    named = ("model", "adapter", "init_scheme", "targets", "task")
    model, method, init_scheme, targets, task = (instantiate(plain[name]) for name in named)
    known = copy.deepcopy(meta_classifier(model, task.num_labels))
    head = head_size(known) if budget.count_head and budget.key == "trainable_params" else 0
    size = {"batch": task.batch_size, "length": budget.length or task.max_length}
    options = {"targets": targets, "init_scheme": init_scheme}
    has_rank = "rank" in config.adapter
    highest = highest_rank(target_modules_of(known, targets)) if has_rank else None
    if isinstance(method, Adapter) and budget.key == "trainable_params":
        count = adapter_entries(method, known, **options)
    elif isinstance(method, Adapter):
        count = adapter_flops(method, known, **options, **size)
    else:

        def count(rank: Rank) -> int:
            if has_rank:
                config.adapter.rank = rank
            at_rank, make_model = instantiate(plain_config(config)["adapter"]), partial(copy.deepcopy, known)
            if budget.key == "trainable_params":
                return other_entries(at_rank, make_model, **options)
            return other_flops(at_rank, make_model, **options, **size)

    return cache(lambda rank: head + count(rank)), highest


def fitting(config: DictConfig, budget: Budget, names: Sequence[str]) -> list[BudgetSolution]:
    """Return the solution on each of the target groups `names` that the variant can adapt.

    Raises:
        ValueError: if it can adapt none of them, with the reason of the first.
    """
    solutions, reasons = [], []
    for name in names:
        targets = group(name)
        try:
            solutions.append(nearest(config, budget, name, targets))
        except ValueError as error:
            reasons.append(error)
    if not solutions:
        raise reasons[0]
    return solutions


def unreachable(config: DictConfig, budget: Budget, solutions: Sequence[BudgetSolution], *, adapter: str) -> ValueError:
    """Return the error with the nearest reachable cost among `solutions` and on all other target groups."""

    def distance(one: BudgetSolution) -> float:
        return abs(one.cost - budget.wanted)

    here = min(solutions, key=distance)
    try:
        others = fitting(config, budget, sorted(path.stem for path in (CONFIGS / "targets").glob("*.yaml")))
    except ValueError:
        others = []
    best = min((one for one in others if one.targets != here.targets), key=distance, default=here)
    if distance(best) < distance(here):
        way_out = f"nearer on other targets: {best}; set targets={best.targets}, raise budget.tolerance"
    else:
        way_out = "no other group of targets comes nearer; raise budget.tolerance"
    head = "" if budget.key != "trainable_params" else f", head {'' if budget.count_head else 'not '}counted"
    return ValueError(
        f"`budget.{budget.key}` (={budget.wanted:,.0f}{head}) cannot be met within {budget.tolerance:.3g} by "
        f"adapter={adapter}: the nearest is {here}; {way_out}, or change the budget"
    )


def group(name: str) -> DictConfig:
    """Return the config of target group `name`.

    Raises:
        ValueError: if there is no such group.
    """
    path = CONFIGS / "targets" / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(path.stem for path in (CONFIGS / "targets").glob("*.yaml")))
        raise ValueError(f"`budget.targets` names {name!r}, which is no group of targets: {known}")
    result = OmegaConf.load(path)
    assert isinstance(result, DictConfig)
    return result
