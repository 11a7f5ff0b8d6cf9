"""From the tidy frame to a table: the axes, the groups over seeds, what stands out, what was published."""

import dataclasses

import pandas as pd

from xlora_bench.results.axes import Axes, Key, find_axes, keys, ordered, varying
from xlora_bench.results.paper import Paper
from xlora_bench.results.statistics import separable_best, summarise
from xlora_bench.results.tables import Entry, Table

Place = tuple[Key, Key]


def build_table(frame: pd.DataFrame, *, title: str, paper: Paper | None = None) -> Table:
    """Return the table of a tidy frame (see `collect`), on the axes that vary or on those of a `paper`.

    Raises:
        ValueError: if the frame has no row.
    """
    if frame.empty:
        raise ValueError(f"there is no cell for the table `{title}`; run some, or widen the filter")
    axes = _axes(frame, paper)
    entries = _measured(frame, axes)
    rows = ordered(row for row, _ in entries)
    columns = ordered(column for _, column in entries)
    published_only: list[Key] = []
    notes = _notes(frame)
    if paper is not None:
        published_only = _other_models(paper, axes, columns)
        rows = _in_published_order(rows, paper)
        entries = _with_published(entries, paper, frame, [(row, column) for row in rows for column in columns])
        entries |= {
            (row, column): Entry(published=paper.value(row, column)) for row in rows for column in published_only
        }
        notes += paper.notes(frame)
    everything = {
        (row, column): entries.get((row, column), Entry()) for row in rows for column in columns + published_only
    }
    return Table(
        title=paper.title if paper else title,
        headline=", ".join(map(str, frame["headline"].dropna().unique())) or "score",
        axes=axes,
        rows=rows,
        columns=columns + published_only,
        entries=_with_bold(everything),
        row_labels=paper.row_labels if paper else {},
        published_only=frozenset(published_only),
        notes=notes,
    )


def _axes(frame: pd.DataFrame, paper: Paper | None) -> Axes:
    """Return the axes; what differs besides the paper's becomes a column: no mean mixes two settings."""
    if paper is None:
        return find_axes(frame)
    known = [name for name in paper.axes if name in frame]
    return Axes(rows=tuple(paper.rows), columns=(*paper.columns, *varying(frame, given=known)))


def _measured(frame: pd.DataFrame, axes: Axes) -> dict[Place, Entry]:
    split = len(axes.rows)
    places = pd.Series(keys(frame, axes.names), index=frame.index, dtype=object)
    groups = summarise(frame.assign(place=places), ["place"], "score")
    return {
        (place[:split], place[split:]): Entry(
            mean=float(mean),
            std=float(std),
            n=int(n),
            collapsed=int(collapsed),
            failed=int(failed),
            missing=int(missing),
        )
        for place, mean, std, n, collapsed, failed, missing in groups.itertuples(index=False)
    }


def _with_published(
    entries: dict[Place, Entry], paper: Paper, frame: pd.DataFrame, places: list[Place]
) -> dict[Place, Entry]:
    comparable = not paper.deviations(frame)
    found = {}
    for row, column in places:
        entry = entries.get((row, column), Entry())
        value = paper.value(row, column)
        found[row, column] = dataclasses.replace(entry, published=value, comparable=comparable and value is not None)
    return found


def _other_models(paper: Paper, axes: Axes, columns: list[Key]) -> list[Key]:
    """Return the published columns to show beside a measured model that has none of its own."""
    place = axes.columns.index("model") if "model" in axes.columns else None
    if place is None or {column[place] for column in columns} <= set(paper.models):
        return []
    width = len(paper.columns)
    extra = (None,) * (len(axes.columns) - width)
    rest = {_without(column[:width], place) for column in columns}
    measured = {column[:width] for column in columns}
    published = [column for column in paper.published_columns if column not in measured]
    return [column + extra for column in published if _without(column, place) in rest]


def _without(key: Key, place: int) -> Key:
    return key[:place] + key[place + 1 :]


def _in_published_order(rows: list[Key], paper: Paper) -> list[Key]:
    order = {row: place for place, row in enumerate(paper.published_rows)}
    return sorted(rows, key=lambda row: order.get(row, len(order)))


def _with_bold(entries: dict[Place, Entry]) -> dict[Place, Entry]:
    marked = dict(entries)
    for column in dict.fromkeys(column for _, column in entries):
        groups = {place: (entry.mean, entry.std) for place, entry in entries.items() if place[1] == column}
        best = separable_best(groups)
        if best is not None:
            marked[best] = dataclasses.replace(entries[best], bold=True)
    return marked


def _notes(frame: pd.DataFrame) -> list[str]:
    notes = [
        "Score at the best epoch on the validation split: mean ± standard deviation (ddof 1) over (n)"
        " done runs, one per seed; runs that collapsed or failed are counted, not averaged.",
        "Bold: ahead of the next best of its column by more than the larger of their standard deviations;"
        " one run never is.",
    ]
    bad = frame[frame["status"].isin(["collapsed", "failed"])]
    for cell, status, reason in zip(bad["cell"], bad["status"], bad["reason"], strict=True):
        name = [cell] if isinstance(cell, str) else []
        notes.append(": ".join([str(status).capitalize(), *name, str(reason or "no reason recorded")]))
    notes += frame.attrs.get("notes", [])
    for path, reason in frame.attrs.get("unreadable", {}).items():
        notes.append(f"Unreadable, not in the table: {path}: {reason}")
    return notes
