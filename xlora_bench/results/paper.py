"""The published side of a table, as written in `conf/paper/*.yaml`."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from xlora_bench.results.axes import Key, keys


@dataclass(frozen=True, kw_only=True)
class Paper:
    """A published table: axes `rows` and `columns`, numbers with their source, and their protocol.

    `protocol` maps config keys to what the paper used; `row_labels` maps values of rows to the paper's names
    for them; each of `published` has a `value` and one entry per axis. The model is a column, so that no
    number can be taken for one of another model.

    Raises:
        ValueError: if a published number lacks an axis or its value, or if the numbers have no source or no
        model.
    """

    title: str
    rows: list[str]
    columns: list[str]
    source: str = ""
    note: str = ""
    protocol: dict[str, Any] = field(default_factory=dict)
    row_labels: dict[str, str] = field(default_factory=dict)
    published: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        expected = {*self.axes, "value"}
        for number in self.published:
            if set(number) != expected:
                raise ValueError(
                    f"number {number} in `paper.published` must have exactly the keys {', '.join(sorted(expected))}"
                )
        if self.published and not self.source:
            raise ValueError("`paper.source` is empty; say where the numbers in `paper.published` come from")
        if self.published and "model" not in self.columns:
            raise ValueError(f"`paper.columns` (={self.columns}) must name the `model` of the published numbers")

    @classmethod
    def parse(cls, node: Mapping[str, Any]) -> "Paper":
        """Return the paper in the `paper` node of a config."""
        known = set(cls.__dataclass_fields__)
        required = {"title", "rows", "columns"}
        wrong = sorted((set(node) - known) | (required - set(node)))
        if wrong:
            raise ValueError(
                f"missing or unknown in `paper`: {', '.join(wrong)}; it may hold {', '.join(sorted(known))}"
            )
        return cls(**node)

    @property
    def axes(self) -> list[str]:
        """The axes of the published table, rows first."""
        return [*self.rows, *self.columns]

    @property
    def models(self) -> list[str]:
        """The models of the published numbers."""
        return list(dict.fromkeys(number["model"] for number in self.published))

    @property
    def published_rows(self) -> list[Key]:
        """The rows of the published table."""
        return list(dict.fromkeys(tuple(number[axis] for axis in self.rows) for number in self.published))

    @property
    def published_columns(self) -> list[Key]:
        """The columns of the published table."""
        return list(dict.fromkeys(tuple(number[axis] for axis in self.columns) for number in self.published))

    def value(self, row: Key, column: Key) -> float | None:
        """Return the published number at a place of the table; axes beyond the paper's are ignored."""
        place = (*row[: len(self.rows)], *column[: len(self.columns)])
        values = (number["value"] for number in self.published if tuple(number[axis] for axis in self.axes) == place)
        return next(values, None)

    def deviations(self, frame: pd.DataFrame) -> dict[str, list[Any]]:
        """Return the keys of the protocol that measured cells set to something else, with what they set."""
        found = {name: list(dict.fromkeys(value for (value,) in keys(frame, [name]))) for name in self.protocol}
        others = {name: [value for value in values if value != self.protocol[name]] for name, values in found.items()}
        return {name: values for name, values in others.items() if values}

    def notes(self, frame: pd.DataFrame) -> list[str]:
        """Return what a reader must know to read measured and published numbers side by side."""
        if not self.published:
            return [self.note] if self.note else []
        notes = [f"In brackets: published, {self.source}.", self.note]
        measured = [str(model) for (model,) in dict.fromkeys(keys(frame, ["model"])) if model not in self.models]
        if measured:
            notes.append(
                f"The published columns are of other models ({', '.join(self.models)}),"
                f" not of {', '.join(measured)}: shown for orientation, not for comparison."
            )
        deviations = [
            f"{name} = {', '.join(map(json.dumps, values))} (published: {json.dumps(self.protocol[name])})"
            for name, values in self.deviations(frame).items()
        ]
        if deviations:
            notes.append(f"Measured under another protocol, so no difference is taken: {'; '.join(deviations)}.")
        return [note for note in notes if note]
