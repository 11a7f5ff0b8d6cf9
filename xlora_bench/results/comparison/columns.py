"""Comparison of one column of a table, such as one task: every method, and each against the reference."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import pandas as pd

from xlora_bench.results.comparison.pairwise import PairwiseTest, against_reference
from xlora_bench.results.comparison.predictions import Examples
from xlora_bench.results.frame.method_names import method_name
from xlora_bench.results.frame.pivot_axes import Key
from xlora_bench.results.statistics.intervals import Bounds, Interval, bounds_of, mean_interval
from xlora_bench.results.statistics.pairs import Pairs, Scores, done_scores, paired
from xlora_bench.results.statistics.significance import describe_significance, significant_from_rest


@dataclass(frozen=True, kw_only=True)
class Line:
    """One method in one column: counts of completed (`n`), failed or collapsed, and missing runs; mean score."""

    method: Key
    n: int
    failed: int
    missing: int
    mean: float
    interval: Interval | None
    pairwise: PairwiseTest | None
    is_reference: bool

    @property
    def verdict(self) -> str:
        """The result of the method against the reference, in words."""
        if self.is_reference:
            return "reference"
        if self.pairwise is None:
            return "no pair: no seed is completed in both" if self.n else "no completed run"
        return self.pairwise.verdict


@dataclass(frozen=True, kw_only=True)
class Column:
    """The comparison of one column; `best` is significantly better than all others (or None), `summary` is text.

    `metrics` are the names of its headline metrics: one, unless the column mixes tasks.
    """

    key: Key
    metrics: tuple[str, ...]
    reference: Key
    lines: list[Line]
    best: Key | None
    summary: str
    scores: Mapping[Key, Scores]
    notes: list[str] = field(default_factory=list)


def compare_column(
    frame: pd.DataFrame,
    methods: pd.Series,
    *,
    key: Key,
    order: list[Key],
    reference: Key,
    examples: Examples,
    labels: Mapping[Key, str],
) -> Column:
    """Return the comparison of one column; `frame` has its rows, `methods` the method of each row.

    Raises:
        ValueError: if a method has two completed runs with one seed.
    """
    by_method = cast("dict[Key, Scores]", done_scores(frame, methods))
    scores = {name: by_method[name] for name in order if name in by_method}
    pairs = {
        name: paired(runs, scores[reference])
        for name, runs in scores.items()
        if name != reference and set(runs) & set(scores.get(reference, {}))
    }
    metrics = tuple(map(str, frame["headline"].dropna().unique()))
    bounds = bounds_of(metrics)
    pairwise = against_reference(pairs, reference=reference, examples=examples, bounds=bounds)
    named = {labels.get(name, method_name(name)): runs for name, runs in scores.items()}
    return Column(
        key=key,
        metrics=metrics,
        reference=reference,
        lines=[
            _line(
                name,
                frame.loc[methods == name, "status"],
                runs,
                pairwise.get(name),
                is_reference=name == reference,
                bounds=bounds,
            )
            for name, runs in scores.items()
        ],
        best=significant_from_rest(scores),
        summary=describe_significance(named),
        scores=scores,
        notes=[*_unpaired(pairs, labels), *examples.problems],
    )


def _line(
    name: Key, statuses: pd.Series, runs: Scores, pairwise: PairwiseTest | None, *, is_reference: bool, bounds: Bounds
) -> Line:
    counts, values = statuses.value_counts(), list(runs.values())
    return Line(
        method=name,
        n=len(values),
        failed=int(counts.get("failed", 0) + counts.get("collapsed", 0)),
        missing=int(counts.get("missing", 0)),
        mean=float(np.mean(values)) if values else math.nan,
        interval=mean_interval(values, bounds=bounds) if len(values) > 1 else None,
        pairwise=pairwise,
        is_reference=is_reference,
    )


def _unpaired(pairs: Mapping[Key, Pairs], labels: Mapping[Key, str]) -> list[str]:
    """Return notes on seeds without a pair: their runs are in the means, not in the differences."""
    notes = []
    for name, each in pairs.items():
        for who, seeds in (("it", each.only_first), ("the reference", each.only_second)):
            if seeds:
                listed = ", ".join(map(str, seeds))
                shown = labels.get(name, method_name(name))
                notes.append(f"{shown}: seed {listed} is completed only for {who}, so no difference includes it.")
    return notes
