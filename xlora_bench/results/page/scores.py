"""Entries of the table of a page: a method in one column, its score, its difference to the reference, and its costs."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from xlora_bench.results.comparison.build import Comparison
from xlora_bench.results.figures.figures import FIGURES, Cost, pareto_front
from xlora_bench.results.frame.method_names import column_label, method_name
from xlora_bench.results.frame.pivot_axes import Key, keys
from xlora_bench.results.page.runs import plain
from xlora_bench.results.statistics.intervals import Interval
from xlora_bench.results.tables.table import Table

RANK = "adapter.rank"
COSTS: Mapping[str, Cost] = {name.removeprefix("score_vs_"): cost for name, cost in FIGURES.items() if cost.front}
"""The costs of the figures, by name."""


def entries(table: Table, comparison: Comparison | None, frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return one mapping per entry of `table` that has a run or a published number; `frame` has the runs.

    Keys: `method`, `panel` (its column), `group` (its column without the rank), `rank`, `metric`, the counts and the
    score of the table, `difference` and so on of the comparison, the means of `COSTS`, `front` (the costs on whose
    Pareto front it is), and `runs` (positions in `frame`).
    """
    runs = _runs(table, frame)
    lines = {} if comparison is None else _lines(comparison)
    costs = _costs(frame)
    result = []
    for (row, column), entry in table.entries.items():
        if not (entry.runs or entry.published):
            continue
        positions = runs.get((*row, *column), [])
        line = lines.get((row, column), {})
        result.append(
            {
                "method": method_name(row, table.row_labels),
                "panel": column_label(table.axes.columns, column) or "all runs",
                **_group(table, column),
                "metric": ", ".join(map(str, frame["headline"].iloc[positions].dropna().unique())) or table.headline,
                "keys": [plain(value) for value in (*row, *column)],
                "score": plain(entry.center),
                "spread": plain(entry.spread) if entry.n > 1 else None,
                **{name: getattr(entry, name) for name in ("n", "collapsed", "failed", "missing", "bold")},
                **_ends("score", entry.interval),
                **line,
                "published": plain(entry.published.value) if entry.published else None,
                "published_note": _published_note(entry),
                **{name: plain(of.iloc[positions].mean()) if positions else None for name, of in costs.items()},
                "runs": positions,
            }
        )
    return _with_fronts(result, list(costs))


def cost_labels(frame: pd.DataFrame) -> dict[str, str]:
    """Return the labels of the costs that the runs have."""
    return {name: COSTS[name].label for name in _costs(frame)}


def _runs(table: Table, frame: pd.DataFrame) -> dict[Key, list[int]]:
    runs: dict[Key, list[int]] = {}
    for position, key in enumerate(keys(frame, table.axes.names)):
        runs.setdefault(key, []).append(position)
    return runs


def _group(table: Table, column: Key) -> dict[str, Any]:
    pairs = list(zip(table.axes.columns, column, strict=True))
    others = [(name, value) for name, value in pairs if name != RANK]
    label = column_label([name for name, _ in others], tuple(value for _, value in others))
    return {"group": label or "all runs", "rank": plain(dict(pairs).get(RANK))}


def _lines(comparison: Comparison) -> dict[tuple[Key, Key], dict[str, Any]]:
    """Return what the comparison says of each method in each column."""
    result = {}
    for column in comparison.columns:
        for line in column.lines:
            pairwise = line.pairwise
            values: dict[str, Any] = {"verdict": line.verdict, "is_reference": line.is_reference}
            if pairwise is not None:
                values |= {
                    "difference": plain(pairwise.difference),
                    "pairs": pairwise.pairs.n,
                    "p": plain(pairwise.p_max_t),
                    "significant": pairwise.significant,
                    **_ends("difference", pairwise.interval),
                }
            result[line.method, column.key] = values
    return result


def _costs(frame: pd.DataFrame) -> Mapping[str, pd.Series]:
    done = frame["status"] == "completed"
    columns = {
        name: (pd.to_numeric(frame[cost.column], errors="coerce").astype(float) * cost.scale).where(done)
        for name, cost in COSTS.items()
        if cost.column in frame
    }
    return {name: column for name, column in columns.items() if column.notna().any()}


def _published_note(entry: Any) -> str | None:
    if entry.published is None:
        return None
    if entry.refused:
        return f"not compared: {'; '.join(entry.refused)}"
    return None if entry.difference is None else f"measured minus published {entry.difference:+.4f}"


def _ends(name: str, interval: Interval | None) -> dict[str, float | None]:
    low, high = (interval.low, interval.high) if interval else (None, None)
    return {f"{name}_low": plain(low), f"{name}_high": plain(high)}


def _with_fronts(rows: list[dict[str, Any]], costs: list[str]) -> list[dict[str, Any]]:
    for row in rows:
        row["front"] = []
    for cost in costs:
        placed = [number for number, row in enumerate(rows) if row["score"] is not None and row[cost]]
        points = pd.DataFrame(
            {
                "panel": [rows[number]["group"] for number in placed],
                "x": [rows[number][cost] for number in placed],
                "mean": [rows[number]["score"] for number in placed],
                "bad": [rows[number]["collapsed"] + rows[number]["failed"] for number in placed],
            }
        )
        if placed:
            for number, on_front in zip(placed, pareto_front(points), strict=True):
                if on_front:
                    rows[number]["front"].append(cost)
    return rows
