"""A table of measured and published numbers, with its output formats."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import pandas as pd
from rich.console import Group
from rich.table import Table as RichTable
from rich.text import Text

from xlora_bench.results.frame.pivot_axes import Key, PivotAxes
from xlora_bench.results.protocols.protocol import Aggregation
from xlora_bench.results.tables.latex import NEEDS, fitting, floats, pages, paragraphs, tabular
from xlora_bench.results.tables.table_cell import TableCell
from xlora_bench.system.escape import csv, latex, markdown

COMPARED = "Measured against published"


@dataclass(frozen=True, kw_only=True)
class Table:
    """Row keys, column keys, and the entry of each pair; columns in `published_only` were not measured.

    Entries that are measured and published are listed again, with their difference or the reason for no comparison.
    `conclusions` are the sentences of the comparison, one per column; only the terminal shows them with the table.
    """

    title: str
    headline: str
    axes: PivotAxes
    rows: list[Key]
    columns: list[Key]
    entries: dict[tuple[Key, Key], TableCell]
    row_labels: dict[str, str] = field(default_factory=dict)
    published_only: frozenset[Key] = frozenset()
    notes: list[str] = field(default_factory=list)
    conclusions: list[str] = field(default_factory=list)
    selection: str = "best"
    aggregation: Aggregation = "mean"

    def to_rich(self) -> Group:
        """Return the table for a terminal: one part per value of the first column axis."""
        parts: list[Any] = [Text(self.title, style="bold")]
        for name, columns in self._parts():
            part = RichTable(title=Text(name) if name else None, title_justify="left")
            for axis in self.axes.rows:
                part.add_column(Text(axis))
            for column in columns:
                part.add_column(Text(self._column_label(column, within=name)), justify="right")
            for row in self.rows:
                entries = [self.entries[row, column] for column in columns]
                part.add_row(*map(Text, self._row_label(row)), *map(_rich, entries))
            parts.append(part)
        if lines := self.compared():
            part = RichTable(title=COMPARED, title_justify="left")
            for axis in self._compared_head():
                part.add_column(Text(axis))
            for line in lines:
                part.add_row(*map(Text, line))
            parts.append(part)
        return Group(*parts, *(Text(note, style="dim") for note in self.notes), *map(Text, self.conclusions))

    def to_markdown(self) -> str:
        """Return the table as Markdown: one part per value of the first column axis."""
        lines = [f"# {markdown(self.title)}"]
        for name, columns in self._parts():
            header = [*self.axes.rows, *(self._column_label(column, within=name) for column in columns)]
            lines += ["", f"## {markdown(name)}", ""] if name else [""]
            lines += [_markdown_row(map(markdown, header)), "|" + "---|" * len(self.axes.rows) + "---:|" * len(columns)]
            for row in self.rows:
                entries = [self.entries[row, column] for column in columns]
                lines.append(_markdown_row([*map(markdown, self._row_label(row)), *map(_markdown, entries)]))
        if compared := self.compared():
            head = self._compared_head()
            lines += ["", f"## {COMPARED}", "", _markdown_row(head), "|" + "---|" * len(head)]
            lines += [_markdown_row(map(markdown, line)) for line in compared]
        return "\n".join([*lines, "", *(f"- {markdown(note)}" for note in self.notes), ""])

    def to_latex(self) -> str:
        """Return the table as LaTeX: floats with as many rows and columns as fit a page, then the notes."""
        measured = [
            tabular(
                "l" * len(self.axes.rows) + "r" * len(columns),
                list(self._latex_head(columns)),
                [
                    [*map(latex, self._row_label(row)), *(_latex(self.entries[row, column]) for column in columns)]
                    for row in rows
                ],
            )
            for columns in self._fitting_columns()
            for rows in pages(self.rows)
        ]
        head = self._compared_head()
        compared = [
            tabular(
                "l" * (len(head) - 1) + "p{5cm}",
                [" & ".join(map(latex, head)) + r" \\"],
                [[*map(latex, line)] for line in lines],
            )
            for lines in pages(self.compared())
        ]
        lines = [NEEDS, *floats(self.title, measured), *floats(f"{self.title}: {COMPARED.lower()}", compared)]
        return "\n".join([*lines, *paragraphs(self.notes), ""])

    def _fitting_columns(self) -> Iterator[list[Key]]:
        """Yield the columns in parts that fit the width of a page."""
        labels = sum(
            max(map(len, texts)) for texts in zip(self.axes.rows, *map(self._row_label, self.rows), strict=True)
        )
        widths = []
        for column in self.columns:
            entries = (self.entries[row, column] for row in self.rows)
            texts = [self._column_label(column), *(f"{entry.measured} {entry.remarks}" for entry in entries)]
            widths.append(max(map(len, texts)) + 2)
        for part in fitting(widths, labels=labels):
            yield self.columns[part]

    def to_csv(self) -> str:
        """Return the table as CSV: one line per entry, numbers at full precision."""
        return csv(self.to_frame())

    def to_frame(self) -> pd.DataFrame:
        """Return a frame with one row per entry, numbers at full precision."""
        about = {"metric": self.headline, "selection": self.selection}
        lines = [
            {**dict(zip(self.axes.names, (*row, *column), strict=True)), **about, **entry.numbers(self.aggregation)}
            for (row, column), entry in self.entries.items()
        ]
        return pd.DataFrame(lines)

    def compared(self) -> list[list[str]]:
        """Return one line of texts for each entry that is measured and published."""
        row_columns = [(row, column) for row in self.rows for column in self.columns]
        both = [
            row_column
            for row_column in row_columns
            if self.entries[row_column].runs and self.entries[row_column].published
        ]
        return [
            [*self._row_label(row), *map(_show, column), *self.entries[row, column].compared()] for row, column in both
        ]

    def _compared_head(self) -> list[str]:
        about = ["published", "measured", "difference", "interval", "inside", "why refused"]
        return [*self.axes.names, *about]

    def _parts(self) -> Iterator[tuple[str, list[Key]]]:
        """Yield (title, columns) for each value of the first column axis; one part if there is no second axis."""
        if len(self.axes.columns) < 2:
            yield "", self.columns
            return
        for first, columns in groupby(self.columns, key=lambda column: column[0]):
            part = list(columns)
            yield _label(self.axes.columns[0], first) + self._remark(part[0]), part

    def _remark(self, column: Key) -> str:
        return " (published, another model)" if column in self.published_only else ""

    def _row_label(self, row: Key) -> list[str]:
        return [self.row_labels.get(str(value), _show(value)) for value in row]

    def _column_label(self, column: Key, *, within: str = "") -> str:
        labels = [_label(name, value) for name, value in zip(self.axes.columns, column, strict=True)]
        if within:
            return ", ".join(labels[1:])
        return (", ".join(labels) or self.headline) + self._remark(column)

    def _latex_head(self, columns: Sequence[Key]) -> Iterator[str]:
        empty = " & " * (len(self.axes.rows) - 1)
        names = " & ".join(map(latex, self.axes.rows))
        last = len(self.axes.columns) - 1
        for level, axis in enumerate(self.axes.columns):
            table_cells = []
            for _, group in groupby(columns, key=lambda column: column[: level + 1]):
                part = list(group)
                label = _label(axis, part[0][level]) + (self._remark(part[0]) if level == 0 else "")
                table_cells.append(rf"\multicolumn{{{len(part)}}}{{c}}{{{latex(label)}}}")
            yield (names if level == last else empty) + " & " + " & ".join(table_cells) + r" \\"
        if last < 0:
            yield names + " & " + latex(self.headline) + r" \\"


def _show(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _label(axis: str, value: Any) -> str:
    """Return a column label: a group choice alone, a config value with its key, such as `rank 8`."""
    _, dot, key = axis.rpartition(".")
    return f"{key} {_show(value)}" if dot else _show(value)


def _rich(entry: TableCell) -> Text:
    text = Text(entry.measured, style="bold" if entry.bold else "")
    return text.append(" " * bool(entry.measured and entry.remarks) + entry.remarks, style="dim not bold")


def _markdown(entry: TableCell) -> str:
    return f"{f'**{entry.measured}**' if entry.bold else entry.measured} {entry.remarks}".strip()


def _markdown_row(texts: Iterable[str]) -> str:
    return "| " + " | ".join(texts) + " |"


def _latex(entry: TableCell) -> str:
    measured = rf"\textbf{{{latex(entry.measured)}}}" if entry.bold else latex(entry.measured)
    return f"{measured} {latex(entry.remarks)}".strip()
