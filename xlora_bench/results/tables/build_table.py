"""Build a table from the tidy frame: axes, groups over seeds, bold entries, published numbers, notes."""

import dataclasses
from collections.abc import Hashable, Mapping

import pandas as pd

from xlora_bench.results.frame.method_names import listed_runs
from xlora_bench.results.frame.pivot_axes import Key, PivotAxes, find_pivot_axes, keys, ordered, varying
from xlora_bench.results.frame.trials import without_trials
from xlora_bench.results.protocols.aggregation import SPREADS, center, interval, spread
from xlora_bench.results.protocols.paper import Paper
from xlora_bench.results.protocols.protocol import Aggregation
from xlora_bench.results.protocols.published import AVERAGE
from xlora_bench.results.protocols.selection import MEANING, selection_notes
from xlora_bench.results.statistics import bounds_of, significant_from_rest, summarise
from xlora_bench.results.tables.averages import with_averages
from xlora_bench.results.tables.consistency_checks import consistency_notes
from xlora_bench.results.tables.table import Table
from xlora_bench.results.tables.table_cell import TableCell

RowColumn = tuple[Key, Key]


def build_table(
    frame: pd.DataFrame, *, title: str, paper: Paper | None = None, aggregation: Aggregation | None = None
) -> Table:
    """Return the table of a tidy frame (see `collect`), on the varying axes or on those of a `paper`.

    The scores are the frame's `score` (see `selection.under`). Their aggregation is `aggregation`, else the paper's,
    else the mean. Tuning trials are left out.

    Raises:
        ValueError: if the frame has no row.
    """
    frame = without_trials(frame)
    if frame.empty:
        raise ValueError(f"there is no run for the table `{title}`; run some, or widen the filter")
    labels = paper.row_labels if paper else {}
    how = aggregation or (paper.protocol.aggregation if paper else None) or "mean"
    axes = axes_of(frame, paper)
    whole = with_averages(frame, axes=axes.names, tasks=paper.tasks) if paper else frame
    groups = _groups(whole, axes)
    entries = _measured(whole, groups, how)
    rows, columns = ordered(row for row, _ in entries), ordered(column for _, column in entries)
    published_only: list[Key] = []
    if paper is not None:
        columns = _averages_last(columns, axes)
        published_only = _other_models(paper, axes, columns)
        rows = _with_published_rows(rows, paper)
        entries = _with_averaged_centers(entries, axes)
        row_columns = [(row, column) for row in rows for column in columns + published_only]
        entries = _with_published(entries, paper, frame, axes, row_columns, aggregation=how)
    everything = {
        (row, column): entries.get((row, column), TableCell()) for row in rows for column in columns + published_only
    }
    return Table(
        title=paper.title if paper else title,
        headline=", ".join(map(str, frame["headline"].dropna().unique())) or "score",
        axes=axes,
        rows=rows,
        columns=columns + published_only,
        entries=_with_bold(everything, whole, groups),
        row_labels=labels,
        published_only=frozenset(published_only),
        notes=[*_notes(frame, how, axes, labels), *(paper.notes(frame) if paper else [])],
        selection=_selection(frame),
        aggregation=how,
    )


def _selection(frame: pd.DataFrame) -> str:
    return str(frame.attrs.get("selection", "best"))


def axes_of(frame: pd.DataFrame, paper: Paper | None) -> PivotAxes:
    """Return the axes; with a paper, other varying keys become columns, so that no mean mixes two settings."""
    if paper is None:
        return find_pivot_axes(frame)
    known = [name for name in paper.axes if name in frame]
    return PivotAxes(rows=tuple(paper.rows), columns=(*paper.columns, *varying(frame, given=known)))


def _groups(frame: pd.DataFrame, axes: PivotAxes) -> dict[RowColumn, list[int]]:
    """Return the row positions of `frame` by table cell (row key, column key)."""
    split = len(axes.rows)
    groups: dict[RowColumn, list[int]] = {}
    for position, row_column in enumerate(keys(frame, axes.names)):
        groups.setdefault((row_column[:split], row_column[split:]), []).append(position)
    return groups


def _measured(
    frame: pd.DataFrame, groups: dict[RowColumn, list[int]], aggregation: Aggregation
) -> dict[RowColumn, TableCell]:
    numbers = {position: number for number, positions in enumerate(groups.values()) for position in positions}
    grouped = frame[["status", "score"]].assign(group=[numbers[position] for position in range(len(frame))])
    counts = summarise(grouped, ["group"], "score").set_index("group").to_dict("index")
    metrics = frame["headline"].to_numpy()
    all_metrics = bounds_of(frame["headline"].dropna().unique())  # for averages over tasks, which have no metric
    result = {}
    for number, (row_column, by_seed) in enumerate(_scores(frame, groups).items()):
        scores = list(by_seed.values())
        own = [name for name in set(metrics[groups[row_column]]) if isinstance(name, str)]
        result[row_column] = TableCell(
            center=center(scores, aggregation),
            spread=spread(scores, aggregation),
            n=len(scores),
            collapsed=int(counts[number]["n_collapsed"]),
            failed=int(counts[number]["n_failed"]),
            missing=int(counts[number]["n_missing"]),
            interval=interval(scores, aggregation, bounds=bounds_of(own) if own else all_metrics),
        )
    return result


def _scores(frame: pd.DataFrame, groups: Mapping[RowColumn, list[int]]) -> dict[RowColumn, dict[Hashable, float]]:
    """Return the scores of the completed runs by seed; a repeated seed gets a negative number as its key."""
    done = ((frame["status"] == "completed") & frame["score"].notna()).tolist()
    seeds, scores = frame["seed"].tolist(), frame["score"].tolist()
    result: dict[RowColumn, dict[Hashable, float]] = {}
    for row_column, positions in groups.items():
        by_seed = result[row_column] = dict[Hashable, float]()
        for seed, score in (
            (int(seeds[position]), float(scores[position])) for position in positions if done[position]
        ):
            by_seed[seed if seed not in by_seed else -len(by_seed) - 1] = score
    return result


def _averages_last(columns: list[Key], axes: PivotAxes) -> list[Key]:
    """Return the columns with each average after the tasks of its model."""
    if "task" not in axes.columns:
        return columns
    task_position = axes.columns.index("task")
    prefixes = list(dict.fromkeys(column[:task_position] for column in columns))
    return sorted(
        columns, key=lambda column: (prefixes.index(column[:task_position]), column[task_position] == AVERAGE)
    )


def _with_averaged_centers(entries: dict[RowColumn, TableCell], axes: PivotAxes) -> dict[RowColumn, TableCell]:
    """Set the centre of each average to the mean of its tasks' centres, as papers do."""
    if "task" not in axes.columns:
        return entries
    task_position = axes.columns.index("task")
    result = dict(entries)
    for (row, column), entry in entries.items():
        if column[task_position] == AVERAGE and entry.n:
            parts = [
                other.center
                for (of, where), other in entries.items()
                if of == row
                and where[task_position] != AVERAGE
                and _without(where, task_position) == _without(column, task_position)
            ]
            result[row, column] = dataclasses.replace(entry, center=sum(parts) / len(parts))
    return result


def _with_published(
    entries: dict[RowColumn, TableCell],
    paper: Paper,
    frame: pd.DataFrame,
    axes: PivotAxes,
    row_columns: list[RowColumn],
    *,
    aggregation: Aggregation,
) -> dict[RowColumn, TableCell]:
    groups = _groups(frame, axes)
    result = {}
    for row, column in row_columns:
        entry, number = entries.get((row, column), TableCell()), paper.number(row, column)
        reasons: list[str] = []
        if number is not None and entry.runs:
            parts = _parts_of(groups, row, column, axes)
            mine = frame.iloc[[position for part in parts for position in part]]
            reasons = paper.reasons(number, mine, selection=_selection(frame), aggregation=aggregation)
        result[row, column] = dataclasses.replace(entry, published=number, refused=tuple(reasons))
    return result


def _parts_of(groups: dict[RowColumn, list[int]], row: Key, column: Key, axes: PivotAxes) -> list[list[int]]:
    """Return the row positions of a table cell; for an average, those of all its tasks."""
    if "task" not in axes.columns or column[axes.columns.index("task")] != AVERAGE:
        return [groups.get((row, column), [])]
    task_position = axes.columns.index("task")
    return [
        part
        for (of, where), part in groups.items()
        if of == row and _without(where, task_position) == _without(column, task_position)
    ]


def _other_models(paper: Paper, axes: PivotAxes, columns: list[Key]) -> list[Key]:
    """Return the published columns of other models to show, if a measured model has no published numbers."""
    model_position = axes.columns.index("model") if "model" in axes.columns else None
    if model_position is None or {column[model_position] for column in columns} <= set(paper.models):
        return []
    width = len(paper.columns)
    extra = (None,) * (len(axes.columns) - width)
    rest = {_without(column[:width], model_position) for column in columns}
    measured = {column[:width] for column in columns}
    published = [column for column in paper.published_columns if column not in measured]
    return [column + extra for column in published if _without(column, model_position) in rest]


def _without(key: Key, position: int) -> Key:
    return key[:position] + key[position + 1 :]


def _with_published_rows(rows: list[Key], paper: Paper) -> list[Key]:
    """Return the published rows, then the rows that were only measured."""
    return list(dict.fromkeys([*paper.published_rows, *rows]))


def _with_bold(
    entries: dict[RowColumn, TableCell], frame: pd.DataFrame, groups: dict[RowColumn, list[int]]
) -> dict[RowColumn, TableCell]:
    marked, scores = dict(entries), _scores(frame, groups)
    for column in dict.fromkeys(column for _, column in entries):
        row_columns = [row_column for row_column in entries if row_column[1] == column and row_column in groups]
        best = significant_from_rest({row_column: scores[row_column] for row_column in row_columns})
        if best is not None:
            marked[best] = dataclasses.replace(entries[best], bold=True)
    return marked


def _notes(frame: pd.DataFrame, aggregation: Aggregation, axes: PivotAxes, labels: Mapping[str, str]) -> list[str]:
    meaning = next(text for name, text in MEANING.items() if name == _selection(frame))
    notes = [
        f"{meaning}: {SPREADS[aggregation][1]} over (n) completed runs, one per seed; runs that collapsed or failed are"
        " counted, not averaged.",
        "Bold: better than every other of its column by the exact paired test over shared seeds (p <= 0.05), which"
        " needs at least six seeds.",
    ]
    bad = frame[frame["status"].isin(["collapsed", "failed"])]
    bad = bad.assign(reason=[str(reason or "no reason recorded") for reason in bad["reason"]])
    for (status, reason), seed_runs in bad.groupby(["status", "reason"], sort=False):
        names = listed_runs([run for run in seed_runs["run_id"] if isinstance(run, str)])
        notes.append(": ".join([str(status).capitalize(), *([names] if names else []), str(reason)]))
    notes += selection_notes(frame, axes.rows, labels)
    notes += consistency_notes(frame)
    notes += frame.attrs.get("notes", [])
    for path, reason in frame.attrs.get("unreadable", {}).items():
        notes.append(f"Unreadable, not in the table: {path}: {reason}")
    return notes
