"""The text at the top of a page: the question, its answer in one sentence, what it cost, and what to trust."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from xlora_bench.results.comparison.build import Comparison
from xlora_bench.results.frame.method_names import column_label, method_name
from xlora_bench.results.frame.trials import without_trials
from xlora_bench.results.tables.table import Table

STATES = ("completed", "collapsed", "failed", "missing")
HOUR, MINUTE = 3600, 60


@dataclass(frozen=True, kw_only=True)
class Answers:
    """`question`, `answer` and `cost` are sentences; `settings` has the answer for each column, by its label."""

    question: str
    answer: str
    cost: str
    settings: Mapping[str, str]


def answers(frame: pd.DataFrame, table: Table, comparison: Comparison | None) -> Answers:
    """Return the text for the runs of `frame`, tuning trials included, their table and comparison."""
    settings = {} if comparison is None else _settings(comparison)
    return Answers(
        question=_question(table),
        answer=_answer(table, comparison, settings),
        cost=_cost(frame),
        settings=settings if len(settings) > 1 else {},
    )


def _settings(comparison: Comparison) -> dict[str, str]:
    names = comparison.axes.columns
    return {column_label(names, column.key) or "all runs": column.summary for column in comparison.columns}


def _question(table: Table) -> str:
    methods = len({method_name(row, table.row_labels) for row in table.rows})
    tasks = sorted({str(value) for value in _values(table, "task")})
    where = f" on {_listed(tasks)}" if tasks else ""
    subject = "How does the method score" if methods == 1 else f"Which of {methods} methods has the highest score"
    return f"{subject}{where} ({table.headline})?"


def _answer(table: Table, comparison: Comparison | None, settings: Mapping[str, str]) -> str:
    if not any(entry.n for entry in table.entries.values()):
        return "No run is completed, so there is no score to compare."
    if comparison is None:
        return "There is one method only, so there is nothing to compare it with."
    if not comparison.columns:
        return f"Nothing could be compared: {' '.join(comparison.notes)}"
    if len(comparison.columns) == 1:
        return next(iter(settings.values()))
    best: dict[str, list[str]] = {}
    for column in comparison.columns:
        name = comparison.labels[column.best] if column.best is not None else ""
        best.setdefault(name, []).append(column_label(comparison.axes.columns, column.key))
    won = [
        f"{name} is significantly better than every other method on {_listed(of)}" for name, of in best.items() if name
    ]
    open_ones = best.get("", [])
    seeds = sorted({line.n for column in comparison.columns for line in column.lines if line.n})
    runs = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    if open_ones:
        won.append(f"no method is significantly better than all others with {runs} seeds on {_listed(open_ones)}")
    text = f"{'; '.join(won)}."
    return f"N{text[1:]}" if len(won) == 1 and open_ones else text


def _cost(frame: pd.DataFrame) -> str:
    counts = frame["status"].value_counts()
    states = ", ".join(f"{counts[state]} {state}" for state in STATES if counts.get(state))
    trials = len(frame) - len(without_trials(frame))
    parts = [f"{len(frame)} runs ({states}{f'; {trials} of them tuning trials' if trials else ''})"]
    names = [name for name in ("cost/train_seconds", "cost/eval_seconds", "cost/init_seconds") if name in frame]
    seconds = sum(float(pd.to_numeric(frame[name], errors="coerce").sum()) for name in names)
    parts.append(f"{duration(seconds)} of initialisation, training and evaluation")
    return f"{'; '.join(parts)}."


def duration(seconds: float) -> str:
    """Return seconds in the largest two units, such as `1 h 12 min`."""
    whole = round(seconds)
    if whole >= HOUR:
        return f"{whole // HOUR} h {whole % HOUR // MINUTE} min"
    return f"{whole // MINUTE} min {whole % MINUTE} s" if whole >= MINUTE else f"{seconds:.3g} s"


def _values(table: Table, axis: str) -> list[object]:
    position = table.axes.names.index(axis) if axis in table.axes.names else None
    if position is None:
        return []
    keys = [(*row, *column) for row in table.rows for column in table.columns]
    return list(dict.fromkeys(key[position] for key in keys if key[position] is not None))


def _listed(names: Sequence[str], most: int = 6) -> str:
    shown = [*names[:most], *([f"{len(names) - most} more"] if len(names) > most else [])]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
