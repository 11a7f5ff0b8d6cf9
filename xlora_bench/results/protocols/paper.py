"""Published table of a paper, read from `conf/paper/*.yaml`."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from xlora_bench.results.frame.method_names import method_name
from xlora_bench.results.frame.pivot_axes import Key, is_missing, keys
from xlora_bench.results.protocols.protocol import Protocol
from xlora_bench.results.protocols.published import AVERAGE, STATUSES, Published, parse_published, published_tasks
from xlora_bench.runs.grid_rules import Rule, parse_rules

ROUNDING = 1e-3
"""Tolerance of a published average against the mean of its numbers, which are rounded to a tenth of a percent."""


@dataclass(frozen=True, kw_only=True)
class Paper:
    """A published table: axes `rows` and `columns`, its numbers, its protocol, and its recipe.

    `tasks` are the tasks of its average. `row_labels` maps row values to the paper's names. `rules` are the grid rules
    of the config; their `set` and `each` are the recipe. The model must be a column, so that numbers of different
    models are never compared.

    Raises:
        ValueError: if there are numbers but no column `model`.
    """

    title: str
    rows: list[str]
    columns: list[str]
    numbers: list[Published]
    tasks: list[str] = field(default_factory=list)
    protocol: Protocol = field(default_factory=Protocol)
    rules: Sequence[Rule] = ()
    note: str = ""
    row_labels: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.numbers and "model" not in self.columns:
            raise ValueError(f"`paper.columns` (={self.columns}) must name the `model` of the published numbers")

    @classmethod
    def parse(cls, node: Mapping[str, Any]) -> "Paper":
        """Parse the `paper` node of a config.

        Raises:
            ValueError: if a key is unknown or missing, a number lacks its row, column, source or status, or a published
            average differs from the mean of its numbers by more than `ROUNDING`.
        """
        shared = {name: node[name] for name in ("source", "status", "n") if node.get(name) is not None}
        own = {"title", "rows", "columns", "protocol", "rules", "note", "row_labels"}
        known = {*own, "published", "scale", "source", "status", "n", "recipes"}
        wrong = sorted((set(node) - known) | ({"title", "rows", "columns"} - set(node)))
        if wrong:
            raise ValueError(
                f"missing or unknown in `paper`: {', '.join(wrong)}; it may hold {', '.join(sorted(known))}"
            )
        blocks = node.get("published") or []
        numbers = parse_published(
            blocks,
            rows=node["rows"],
            columns=node["columns"],
            scale=float(node.get("scale", 1)),
            shared=shared,
        )
        tasks = published_tasks(blocks) if "task" in node["columns"] else []
        numbers += _averages(numbers, tasks, position=node["columns"].index("task")) if len(tasks) > 1 else []
        defaults = {name: node[name] for name in own if node.get(name) is not None}
        protocol = Protocol.parse(node.get("protocol") or {})
        return cls(
            **{
                **defaults,
                "numbers": numbers,
                "tasks": tasks,
                "protocol": protocol,
                "rules": parse_rules(node.get("rules")),
            }
        )

    @property
    def axes(self) -> list[str]:
        """The axes of the published table, rows first."""
        return [*self.rows, *self.columns]

    @property
    def models(self) -> list[str]:
        """The models of the published numbers."""
        position = self.columns.index("model") if self.numbers else 0
        return list(dict.fromkeys(str(number.column[position]) for number in self.numbers))

    @property
    def published_rows(self) -> list[Key]:
        """The rows of the published table."""
        return list(dict.fromkeys(number.row for number in self.numbers))

    @property
    def published_columns(self) -> list[Key]:
        """The columns of the published table."""
        return list(dict.fromkeys(number.column for number in self.numbers))

    def number(self, row: Key, column: Key) -> Published | None:
        """Return the published number of a table cell; axes that the paper does not have are ignored."""
        wanted = (row[: len(self.rows)], column[: len(self.columns)])
        return next((number for number in self.numbers if (number.row, number.column) == wanted), None)

    def value(self, row: Key, column: Key) -> float | None:
        """Return the published value of a table cell, if any."""
        number = self.number(row, column)
        return None if number is None else number.value

    def reasons(self, number: Published, run_rows: pd.DataFrame, *, selection: str, aggregation: str) -> list[str]:
        """Return the reasons not to compare the measured number of `run_rows` with `number`; empty if comparable."""
        reasons = self.protocol.reasons(run_rows, rules=self.rules, selection=selection, aggregation=aggregation)
        return [number.refuse, *reasons] if number.refuse else reasons

    def notes(self, frame: pd.DataFrame) -> list[str]:
        """Return the notes on the published numbers: sources, other models, what was not stated, parameter counts."""
        if not self.numbers:
            return [self.note] if self.note else []
        sources = dict.fromkeys((number.source, number.status) for number in self.numbers if not _is_average(number))
        cited = "; ".join(f"{source} ({STATUSES[status]})" for source, status in sources)
        notes = [f"In brackets: published, {cited}.", self.note]
        measured = [str(model) for (model,) in dict.fromkeys(keys(frame, ["model"])) if model not in self.models]
        if measured:
            notes.append(
                f"The published columns are of other models ({', '.join(self.models)}),"
                f" not of {', '.join(measured)}: shown for orientation, not for comparison."
            )
        if self.protocol.untold:
            notes.append(f"The source does not state: {', '.join(self.protocol.untold)}; not checked.")
        return [note for note in [*notes, self._parameters(frame)] if note]

    def _parameters(self, frame: pd.DataFrame) -> str:
        """Return a note with measured and published counts of trained parameters by row; empty if no row has both."""
        column = "parameters/trainable" if self.protocol.head_counted else "parameters/adapter"
        if column not in frame:
            return ""
        published = {(n.row, n.column[self.columns.index("model")]): n.parameters for n in self.numbers if n.parameters}
        measured: dict[tuple[Key, str], int] = {}
        for (*row, model), count in zip(keys(frame, [*self.rows, "model"]), frame[column], strict=True):
            if (tuple(row), model) in published and not is_missing(count):
                measured[tuple(row), model] = int(count)
        parts = [
            f"{method_name(row)} {count:,} ({published[row, model]:,.0f})" for (row, model), count in measured.items()
        ]
        head = "with" if self.protocol.head_counted else "without"
        return f"Trained parameters {head} the head, measured (published): {'; '.join(parts)}." if parts else ""


def _is_average(number: Published) -> bool:
    return AVERAGE in number.column


def _averages(numbers: Sequence[Published], tasks: Sequence[str], *, position: int) -> list[Published]:
    """Return averages for the rows that have all `tasks` but no published average; check the published ones."""
    result = []
    for group in _by_row(numbers, position):
        parts = [number for number in group if not _is_average(number)]
        if len(parts) < len(tasks):
            continue
        mean = sum(number.value for number in parts) / len(parts)
        published = next((number for number in group if _is_average(number)), None)
        if published is None:
            result.append(_average(parts, mean, position))
        elif abs(published.value - mean) > ROUNDING + 1e-9:
            raise ValueError(
                f"the published average {published.value:.4f} of row {published.row} is not that of its numbers"
                f" ({mean:.4f} over {len(parts)} tasks); correct one of them"
            )
    return result


def _by_row(numbers: Sequence[Published], position: int) -> Iterator[list[Published]]:
    groups: dict[Key, list[Published]] = {}
    for number in numbers:
        groups.setdefault((number.row, number.column[:position], number.column[position + 1 :]), []).append(number)
    yield from groups.values()


def _average(parts: Sequence[Published], mean: float, position: int) -> Published:
    first = parts[0]
    return Published(
        row=first.row,
        column=(*first.column[:position], AVERAGE, *first.column[position + 1 :]),
        value=mean,
        spread=None,
        n=first.n,
        source=first.source,
        status=first.status,
        parameters=first.parameters,
        refuse=first.refuse,
    )
