"""`--dry-run`: list the runs of a sweep (or a single run) with their estimated costs; nothing is trained."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from xlora_bench.runs.console import console
from xlora_bench.runs.grid_rules import ABSENT
from xlora_bench.runs.overrides import START_FROM, Overrides, as_lines, as_text, from_lines, listed, parent_overrides
from xlora_bench.sweeps.estimate.costs import Cost, cost_of
from xlora_bench.sweeps.estimate.finished_runs import FinishedRuns
from xlora_bench.sweeps.estimate.sizes import encoder_of, rows_of
from xlora_bench.sweeps.planning.compose import Composer
from xlora_bench.sweeps.planning.jobs import PlannedRun, varying_keys
from xlora_bench.sweeps.planning.phases import Phases
from xlora_bench.sweeps.reporting.progress import span
from xlora_bench.training.caches import PROCESS
from xlora_bench.training.preflight import trained_parameters
from xlora_bench.training.resolve import CheckedRun

OUTSIDE = ("paths", "logger", "hydra")
"""Key groups that are not shown, because they do not change a run."""


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A listed run: its role in the sweep, its cost, whether it is recorded, and the sources of sizes and speed.

    `rank` is the rank that a budget was solved for, else None. `parameters` counts the trained entries without the
    head; None if that is not known before the run starts.
    """

    role: str
    overrides: Overrides
    rank: int | None
    parameters: int | None
    cost: Cost
    recorded: bool
    sizes: str
    measured: bool

    @property
    def start(self) -> str:
        """The changes of `start_from`: those of config groups if there are any, else all."""
        text = self.overrides.get(START_FROM)
        changes = listed(text) if text else []
        groups = [line for line in changes if "." not in line.partition("=")[0]]
        return " ".join(groups or changes)


def dry_run(
    phases: Phases, *, results_dir: Path, checked: Mapping[PlannedRun, CheckedRun], warnings: Sequence[str] = ()
) -> None:
    """Print the runs of the command line, their totals, and the sources of the estimates."""
    listed_runs = list_runs(phases, results_dir=results_dir, checked=checked)
    terminal = console()
    terminal.print(table_of(listed_runs, phases))
    for line in [*summary_of(listed_runs), *phases.notes, *(f"Warning: {line}" for line in warnings)]:
        terminal.print(line, soft_wrap=True, markup=False, highlight=False)


def list_runs(phases: Phases, *, results_dir: Path, checked: Mapping[PlannedRun, CheckedRun]) -> list[Listed]:
    """Return the parents that are not runs of the sweep (each once), then the runs of the sweep in their order.

    A tuned run is listed with the cost of its fixed run, because its values are not known before the trials.
    """
    finished, composer = FinishedRuns(results_dir), phases.grid.composer
    lines: list[Listed] = []
    own = {composer.signature(from_lines(run.overrides)) for run in phases.runs}
    parents: dict[Any, Overrides] = {}
    for run in phases.runs:
        for parent in _parents(from_lines(run.overrides), composer):
            if composer.signature(parent) not in own:
                parents.setdefault(composer.signature(parent), parent)
    for parent in parents.values():
        lines.append(_listed("parent", parent, composer, finished))
    for run in phases.runs:
        for role in run.tuning or ("run",):
            lines.append(_listed(role, from_lines(run.overrides), composer, finished, checked.get(run)))
    return lines


def _listed(
    role: str, overrides: Overrides, composer: Composer, finished: FinishedRuns, checked: CheckedRun | None = None
) -> Listed:
    config, rank = composer.resolved(overrides), None
    if checked is not None and checked.config.get("adapter") != config["adapter"]:  # a budget was solved
        config = {**config, **{name: checked.config[name] for name in ("adapter", "targets")}}
        rank = config["adapter"].get("rank")
    rows = rows_of(config)
    speed = finished.speed(config)
    recorded = role != "tuned" and finished.has(config, data=rows.fingerprint if rows else None)
    return Listed(
        role=role,
        overrides=overrides,
        rank=rank,
        parameters=trained_parameters(config, checked.objects, PROCESS) if checked is not None else None,
        cost=cost_of(config, rows, encoder_of(config["model"]), measured=speed),
        recorded=recorded,
        sizes=rows.source if rows else "nothing",
        measured=speed is not None,
    )


def _parents(overrides: Overrides, composer: Composer) -> Iterator[Overrides]:
    """Yield all ancestors of a run, the most distant first."""
    changes = composer.resolved(overrides).get(START_FROM)
    if changes:
        parent = from_lines(parent_overrides(as_lines(overrides), start_from=changes))
        yield from _parents(parent, composer)
        yield {
            key: value
            for key, value in parent.items()
            if (key, value) not in {(START_FROM, "null"), ("rerun", "false")}
        }


def table_of(listed_runs: Sequence[Listed], phases: Phases) -> Table:
    """Return a table with one line per run: role, varying keys, and cost."""
    varying = varying_keys([as_lines(run.overrides) for run in listed_runs])
    keys = dict.fromkeys(key for run in listed_runs for key in run.overrides)
    shown = [key for key in keys if key in varying and key.partition(".")[0] not in (*OUTSIDE, START_FROM)]
    roles, starts = len({run.role for run in listed_runs}) > 1, any(run.start for run in listed_runs)
    names = [*(["role"] if roles else []), *shown, *(["starts from"] if starts else [])]
    table = Table(*names, title=f"{len(listed_runs)} run{'s' * (len(listed_runs) > 1)}", title_justify="left")
    solved = any(run.rank is not None for run in listed_runs)
    counted = any(run.parameters is not None for run in listed_runs)
    for name in (
        *(["rank"] if solved else []),
        *(["parameters"] if counted else []),
        "steps",
        "training tokens",
        "time",
    ):
        table.add_column(name, justify="right")
    for run in listed_runs:
        values = [_value(run, key, phases) for key in shown]
        texts = [run.role] * roles + values + [run.start] * starts
        texts += [_count(run.rank)] * solved + [_count(run.parameters)] * counted
        time = "recorded" if run.recorded else "?" if run.cost.span is None else span(*run.cost.span)
        table.add_row(*map(Text, (*texts, _count(run.cost.steps), _count(run.cost.tokens), time)))
    return table


def summary_of(listed_runs: Sequence[Listed]) -> list[str]:
    """Return the totals of the runs without a record, and the sources of the estimates, as lines of text."""
    new = [run for run in listed_runs if not run.recorded]
    steps, tokens = (sum(getattr(run.cost, name) or 0 for run in new) for name in ("steps", "tokens"))
    spans = [run.cost.span for run in new]
    unknown = spans.count(None)
    low, high = (sum(one[end] for one in spans if one is not None) for end in (0, 1))
    time = span(low, high) if unknown < len(spans) or not spans else "an unknown time"
    lines = [
        f"{len(listed_runs)} run{'s' * (len(listed_runs) != 1)}, {len(listed_runs) - len(new)} recorded; to train: "
        f"{len(new)} run{'s' * (len(new) != 1)}, "
        f"{steps:,} steps, {tokens:,} tokens, {time} one after the other"
        + (f" ({unknown} of unknown time)" if 0 < unknown < len(spans) else "")
    ]
    lines.append(f"Rows and tokens per row: from {' and from '.join(sorted({run.sizes for run in listed_runs}))}.")
    if any(run.measured for run in new):
        lines.append(
            "Time: tokens per second of earlier runs of the same model on this device, in this results folder."
        )
    if any(not run.measured and run.cost.span for run in new):
        lines.append(
            "Time, where no run of the model was trained here: from the encoder's operations per token, and the speed "
            "of a matrix product that was measured just now on the device that trains."
        )
    if unknown:
        lines.append("Time `?`: the device (trainer.accelerator) or the size of the model or task is not known here.")
    if any(run.parameters is not None for run in listed_runs):
        unknown = any(run.parameters is None for run in listed_runs)
        lines.append(f"Parameters: trained, without the head{'; `?`: known when the run starts' * unknown}.")
    if any(run.role == "tuned" for run in listed_runs):
        lines.append("Tuned runs: their values come from the trials; one that equals its fixed run costs nothing.")
    return lines


def _value(run: Listed, key: str, phases: Phases) -> str:
    if run.role == "tuned" and phases.tuner is not None and key in phases.tuner.tuning.keys:
        return "(tuned)"
    value = phases.grid.composer.value(run.overrides, key)
    return "" if value is ABSENT else as_text(value)


def _count(number: int | None) -> str:
    return "?" if number is None else f"{number:,}"
