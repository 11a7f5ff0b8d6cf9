"""Check of every run of a sweep, trials and parents included, before the first one trains."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from xlora_bench.results.protocols.paper import Paper
from xlora_bench.runs.overrides import START_FROM, Overrides, as_lines, from_lines, parent_overrides
from xlora_bench.sweeps.estimate.sizes import rows_of
from xlora_bench.sweeps.planning.compose import Composer
from xlora_bench.sweeps.planning.jobs import PlannedRun, varying_keys
from xlora_bench.sweeps.planning.phases import Phases
from xlora_bench.system.options import OptionsError
from xlora_bench.training.caches import PROCESS, Caches
from xlora_bench.training.options import GROUPS, GroupCheck, check_group
from xlora_bench.training.preflight import run_warnings
from xlora_bench.training.prepare import total_steps
from xlora_bench.training.resolve import CheckedRun, check_run, of_parent
from xlora_bench.training.start_from import check_parent

FEWEST_SEEDS = 6
"""Pairs below which no exact permutation test reaches p = .05."""
SHOWN = 3
"""Runs that a line of the report names."""


@dataclass(frozen=True, kw_only=True)
class CheckedSweep:
    """The warnings about a sweep, and its checked runs; runs that differ in the seed alone share theirs."""

    warnings: Sequence[str] = ()
    runs: Mapping[PlannedRun, CheckedRun] = field(default_factory=dict)


def check_sweep(phases: Phases, config: DictConfig, *, starts_here: bool) -> CheckedSweep:
    """Check all runs of a sweep. With `sweep.skip_invalid` refused runs are left out of it.

    Raises:
        OptionsError: with the faults of all runs, if any is refused.
    """
    if config.get("paper") is not None:
        Paper.parse(cast("dict[str, Any]", OmegaConf.to_container(config.paper, resolve=True)))
    runs = checked_runs(phases.runs, phases.grid.composer, PROCESS, starts_here=starts_here)
    faults = {run: checked_run.faults for run, checked_run in runs.items() if checked_run.faults}
    if faults and config.sweep.skip_invalid and phases.tuner is None and len(faults) < len(phases.runs):
        phases.leave_out({run: "; ".join(lines) for run, lines in faults.items()})
    elif faults:
        raise OptionsError(fault_lines(faults, of=len(phases.runs)))
    return CheckedSweep(warnings=sweep_warnings(phases), runs=runs)


def sweep_warnings(phases: Phases) -> list[str]:
    """Return each distinct warning once, and that a test needs more seeds."""
    composer, lines, seeds = phases.grid.composer, dict[str, None](), set()
    seen = set()
    for run in phases.runs:
        overrides = from_lines(run.overrides)
        seeds.add(overrides.get("seed"))
        key = tuple(line for line in run.overrides if not line.startswith("seed="))
        if key not in seen:
            seen.add(key)
            config = composer.resolved(overrides)
            rows = rows_of(config)
            steps = None if rows is None else total_steps(config, rows=rows.train)
            lines |= dict.fromkeys(run_warnings(config, steps=steps))
    if 1 < len(seeds) < FEWEST_SEEDS:
        lines[f"{len(seeds)} seeds: the paired test of a table needs at least {FEWEST_SEEDS} to find a difference"] = (
            None
        )
    return list(lines)


def is_checked(config: DictConfig) -> bool:
    """Return whether a primary config is one of this program: applications with other groups check their own."""
    return set(GROUPS) <= set(config)


def checked_runs(
    runs: Sequence[PlannedRun], composer: Composer, caches: Caches, *, starts_here: bool
) -> dict[PlannedRun, CheckedRun]:
    """Return what the check of each run gave. Runs that differ in the seed alone are checked once."""
    known: dict[tuple[str, ...], CheckedRun] = {}
    result, check = {}, memoized(check_group)
    for run in runs:
        overrides = from_lines(run.overrides)
        seed = overrides.get("seed")
        alike = {**overrides, "seed": "0"} if seed is not None and seed.isdigit() else overrides
        key = tuple(as_lines(alike))
        if key not in known:
            known[key] = checked(alike, composer, caches, starts_here=starts_here, check=check)
        result[run] = known[key]
    return result


def memoized(check: GroupCheck) -> GroupCheck:
    """Return `check` with its results kept: the runs of a sweep share most of their groups."""
    known: dict[str, tuple[Any, list[str]]] = {}

    def checked(group: str, node: Any) -> tuple[Any, list[str]]:
        key = json.dumps([group, node], sort_keys=True, default=repr)
        if key not in known:
            known[key] = check(group, node)
        return known[key]

    return checked


def checked(
    overrides: Overrides, composer: Composer, caches: Caches, *, starts_here: bool, check: GroupCheck
) -> CheckedRun:
    """Check one run, and its parents."""
    choices = {group: str(choice) for group, choice in composer.choices(overrides).items() if "/" not in group}
    run = check_run(
        composer.resolved(overrides),
        composed=lambda: composer.config(overrides),
        choices=choices,
        overrides=as_lines(overrides),
        caches=caches,
        starts_here=starts_here,
        check=check,
    )
    start_from = run.config.get(START_FROM)
    if run.faults or not start_from:
        return run
    try:
        parent = from_lines(parent_overrides(as_lines(overrides), start_from=start_from))
        parent_run = checked(parent, composer, caches, starts_here=starts_here, check=check)
        if not parent_run.faults:
            check_parent(run.config, parent_run.config)
        return replace(run, faults=of_parent(parent_run.faults))
    except ValueError as error:
        return replace(run, faults=str(error).splitlines())


def fault_lines(faults: Mapping[PlannedRun, Sequence[str]], *, of: int) -> list[str]:
    """Return a line per distinct fault with the runs that have it, and a line that counts them."""
    runs_of: dict[str, list[PlannedRun]] = {}
    for run, lines in faults.items():
        for line in lines:
            runs_of.setdefault(line, []).append(run)
    shown = varying_keys([list(run.overrides) for run in faults]) - {"seed"}
    if of == 1:
        return list(runs_of)
    result = [f"{line} ({named(runs, shown)})" for line, runs in runs_of.items()]
    count = f"{len(faults)} of {of} runs are refused, so none is started"
    return [*result, f"{count}; sweep.skip_invalid=true leaves them out" if len(faults) < of else count]


def named(runs: Sequence[PlannedRun], keys: set[str]) -> str:
    """Return the runs by the keys that vary among the refused ones, and how many there are."""
    texts = dict.fromkeys(" ".join(line for line in run.overrides if line.partition("=")[0] in keys) for run in runs)
    names = [text for text in texts if text]
    count = f"{len(runs)} run{'s' * (len(runs) > 1)}"
    return f"{count}: {'; '.join(names[:SHOWN])}{'; ...' * (len(names) > SHOWN)}" if names else count
