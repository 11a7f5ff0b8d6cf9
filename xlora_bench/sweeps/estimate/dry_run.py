"""`--dry-run`: the cells of a sweep, or the one of a single run, and what they would cost; nothing is trained."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from omegaconf import DictConfig
from rich.table import Table
from rich.text import Text

from xlora_bench.runs.console import console
from xlora_bench.runs.grid_rules import ABSENT
from xlora_bench.runs.overrides import START_FROM, Overrides, as_lines, as_text, from_lines, listed, parent_overrides
from xlora_bench.sweeps.estimate.costs import EFFICIENCY, Cost, cost_of, flops_per_second
from xlora_bench.sweeps.estimate.finished_runs import Known
from xlora_bench.sweeps.estimate.sizes import encoder_of, rows_of
from xlora_bench.sweeps.planning.compose import Composer
from xlora_bench.sweeps.planning.jobs import varying_keys
from xlora_bench.sweeps.planning.phases import Rounds
from xlora_bench.sweeps.reporting.progress import duration

OUTSIDE = ("paths", "logger", "hydra")
"""Groups of keys that say nothing about a cell."""


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A line of the list: a cell, its role in the sweep, its cost, and where its sizes are known from."""

    role: str
    overrides: Overrides
    cost: Cost
    recorded: bool
    sizes: str
    measured: bool

    @property
    def start(self) -> str:
        """What makes this cell's parent from it: the groups, which name it, or else all."""
        text = self.overrides.get(START_FROM)
        changes = listed(text) if text else []
        groups = [line for line in changes if "." not in line.partition("=")[0]]
        return " ".join(groups or changes)


def dry_run(config: DictConfig, loader: ConfigLoader, *, arguments: Sequence[str]) -> None:
    """Print the cells that the command line stands for, their totals, and what the numbers rest on."""
    rounds = Rounds(config, loader, arguments=arguments)
    cells = list_cells(rounds, results_dir=Path(config.paths.results_dir).expanduser())
    terminal = console()
    terminal.print(table_of(cells, rounds))
    for line in [*summary_of(cells), *rounds.notes]:
        terminal.print(line, soft_wrap=True, markup=False, highlight=False)


def list_cells(rounds: Rounds, *, results_dir: Path) -> list[Listed]:
    """Return the cells of a sweep in their order, parents first, each once.

    The values of a tuned cell are not known yet: it is listed at the cost of the fixed one.
    """
    known, composer = Known(results_dir), rounds.grid.composer
    lines: list[Listed] = []
    own = {composer.signature(from_lines(cell.overrides)) for cell in rounds.cells}
    parents: dict[Any, Overrides] = {}
    for cell in rounds.cells:
        for parent in _parents(from_lines(cell.overrides), composer):
            if composer.signature(parent) not in own:
                parents.setdefault(composer.signature(parent), parent)
    for parent in parents.values():
        lines.append(_listed("parent", parent, composer, known))
    for cell in rounds.cells:
        for role in cell.tuning or ("cell",):
            lines.append(_listed(role, from_lines(cell.overrides), composer, known))
    return lines


def _listed(role: str, overrides: Overrides, composer: Composer, known: Known) -> Listed:
    config = composer.resolved(overrides)
    rows = rows_of(config)
    speed = known.speed(config)
    recorded = role != "tuned" and known.has(config, data=rows.fingerprint if rows else None)
    return Listed(
        role=role,
        overrides=overrides,
        cost=cost_of(config, rows, encoder_of(config["model"]), measured=speed),
        recorded=recorded,
        sizes=rows.source if rows else "nothing",
        measured=speed is not None,
    )


def _parents(overrides: Overrides, composer: Composer) -> Iterator[Overrides]:
    """Yield the parents of a cell, the first ancestor first."""
    changes = composer.resolved(overrides).get(START_FROM)
    if changes:
        parent = from_lines(parent_overrides(as_lines(overrides), start_from=changes))
        yield from _parents(parent, composer)
        yield {
            key: value
            for key, value in parent.items()
            if (key, value) not in {(START_FROM, "null"), ("rerun", "false")}
        }


def table_of(cells: Sequence[Listed], rounds: Rounds) -> Table:
    """Return a line per cell: its role, what varies, and its cost."""
    varying = varying_keys([as_lines(cell.overrides) for cell in cells])
    keys = dict.fromkeys(key for cell in cells for key in cell.overrides)
    shown = [key for key in keys if key in varying and key.partition(".")[0] not in (*OUTSIDE, START_FROM)]
    roles, starts = len({cell.role for cell in cells}) > 1, any(cell.start for cell in cells)
    names = [*(["role"] if roles else []), *shown, *(["starts from"] if starts else [])]
    table = Table(*names, title=f"{len(cells)} cell{'s' * (len(cells) > 1)}", title_justify="left")
    for name in ("steps", "training tokens", "time"):
        table.add_column(name, justify="right")
    for cell in cells:
        values = [_value(cell, key, rounds) for key in shown]
        texts = [cell.role] * roles + values + [cell.start] * starts
        time = "recorded" if cell.recorded else _time(cell.cost.seconds)
        table.add_row(*map(Text, (*texts, _count(cell.cost.steps), _count(cell.cost.tokens), time)))
    return table


def summary_of(cells: Sequence[Listed]) -> list[str]:
    """Return the totals of the cells that would be trained, and what they rest on."""
    new = [cell for cell in cells if not cell.recorded]
    steps, tokens = (sum(getattr(cell.cost, name) or 0 for cell in new) for name in ("steps", "tokens"))
    seconds = [cell.cost.seconds for cell in new]
    unknown = sum(value is None for value in seconds)
    time = duration(sum(value or 0.0 for value in seconds))
    lines = [
        f"{len(cells)} cells, {len(cells) - len(new)} of them recorded; to train: {len(new)} cells, {steps:,} steps, "
        f"{tokens:,} tokens, about {time} one after the other" + (f" ({unknown} of unknown time)" if unknown else "")
    ]
    lines.append(f"Rows and tokens per row: from {' and from '.join(sorted({cell.sizes for cell in cells}))}.")
    if any(cell.measured for cell in new):
        lines.append("Time: tokens per second of earlier cells of the same model in this results folder.")
    if any(not cell.measured for cell in new) and len(new) > unknown:
        lines.append(
            f"Time, where no cell of the model was trained here: the encoder's operations per token, at {EFFICIENCY:g} "
            f"of the {flops_per_second() / 1e9:.0f} GFLOP/s that a matrix product reached just now; right within a "
            "factor of two."
        )
    if any(cell.role == "tuned" for cell in cells):
        lines.append("Tuned cells: their values come from the trials; one that equals its fixed cell costs nothing.")
    return lines


def _value(cell: Listed, key: str, rounds: Rounds) -> str:
    if cell.role == "tuned" and rounds.tuner is not None and key in rounds.tuner.tuning.keys:
        return "(tuned)"
    value = rounds.grid.composer.value(cell.overrides, key)
    return "" if value is ABSENT else as_text(value)


def _count(number: int | None) -> str:
    return "?" if number is None else f"{number:,}"


def _time(seconds: float | None) -> str:
    return "?" if seconds is None else duration(seconds)
