"""Comparison of all methods over all tasks of one setting, such as one model and rank."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from xlora_bench.results.comparison.columns import Column
from xlora_bench.results.frame.pivot_axes import Key
from xlora_bench.results.statistics.across import (
    LEAST_METHODS,
    average_ranks,
    critical_difference,
    friedman_test,
    nemenyi_test,
    wilcoxon_holm,
)
from xlora_bench.results.statistics.intervals import Interval
from xlora_bench.results.statistics.iqm import iqm_interval
from xlora_bench.results.statistics.pairs import paired
from xlora_bench.results.statistics.permutation_test import ALPHA


@dataclass(frozen=True, kw_only=True)
class Across:
    """Methods over tasks: mean `scores` (tasks x methods), mean `ranks`, p-values, and `sentences` for the report.

    `p_pairs` is Nemenyi's matrix (Wilcoxon-Holm for two methods), None if there are too few tasks. `iqm` are the
    interquartile means over tasks and seeds, `iqm_difference` those of the differences to the reference.
    """

    setting: Key
    scores: pd.DataFrame
    ranks: pd.Series
    friedman: float | None = None
    p_pairs: pd.DataFrame | None = None
    iqm: Mapping[str, Interval] = field(default_factory=dict)
    iqm_difference: Mapping[str, Interval] = field(default_factory=dict)
    sentences: Sequence[str] = ()


def compare_across(
    columns: Sequence[Column], tasks: Sequence[str], *, setting: Key, labels: Mapping[Key, str]
) -> Across:
    """Return the comparison over the columns of one setting, one per task.

    Raises:
        ValueError: if fewer than two methods have a completed run on every task, they share no seed on a task, or there
            are fewer than `LEAST_TASKS` tasks.
    """
    table, left_out = _means(columns, tasks, labels)
    ranks = average_ranks(table)
    sentences = [f"Left out, without a completed run on every task: {', '.join(left_out)}."] if left_out else []
    friedman, p_pairs, test_sentences = _tests(table)
    complete = {name: name in table.columns for name in labels.values()}
    iqm, difference, remarks = _iqm(columns, tasks, {key: name for key, name in labels.items() if complete[name]})
    return Across(
        setting=setting,
        scores=table,
        ranks=ranks,
        friedman=friedman,
        p_pairs=p_pairs,
        iqm=iqm,
        iqm_difference=difference,
        sentences=[*sentences, *test_sentences, *remarks],
    )


def _means(
    columns: Sequence[Column], tasks: Sequence[str], labels: Mapping[Key, str]
) -> tuple[pd.DataFrame, list[str]]:
    """Return mean scores over shared seeds of the methods with a completed run on every task, and the other methods."""
    complete = [name for name in labels if all(column.scores.get(name) for column in columns)]
    if len(complete) < 2:
        raise ValueError("fewer than two methods have a completed run on every task")
    rows = {}
    for task, column in zip(tasks, columns, strict=True):
        shared = set.intersection(*(set(column.scores[name]) for name in complete))
        if not shared:
            raise ValueError(f"on {task} no seed is complete for all of {', '.join(labels[name] for name in complete)}")
        rows[task] = {
            labels[name]: float(np.mean([column.scores[name][seed] for seed in sorted(shared, key=str)]))
            for name in complete
        }
    return pd.DataFrame.from_dict(rows, orient="index"), [labels[name] for name in labels if name not in complete]


def _tests(table: pd.DataFrame) -> tuple[float | None, pd.DataFrame | None, list[str]]:
    tasks, methods = table.shape
    if methods < LEAST_METHODS:
        try:
            pairs = wilcoxon_holm(table)
        except ValueError as few:
            return None, None, [f"Not tested over tasks: {few}."]
        p = float(pairs.to_numpy()[0, 1])
        return None, pairs, [f"Wilcoxon's signed-rank test over {tasks} tasks: p = {p:.3g}{_significant(p)}."]
    friedman, pairs = friedman_test(table), nemenyi_test(table)
    distance = critical_difference(methods, tasks)
    test_sentences = [
        f"Friedman's test over {tasks} tasks: p = {friedman:.3g}; the {methods} methods "
        f"{'do not all rank alike' if friedman <= ALPHA else 'cannot be told from methods that rank alike'}.",
        f"By Nemenyi's test two methods differ if their mean ranks are more than {distance:.2f} apart, of "
        f"{methods - 1} that they can be.",
        _different(pairs),
    ]
    return friedman, pairs, test_sentences


def _different(pairs: pd.DataFrame) -> str:
    names, p_values = list(pairs.columns), pairs.to_numpy()
    different = [
        f"{names[i]} and {names[j]} (p = {p_values[i, j]:.3g})"
        for i, j in zip(*np.triu_indices(len(names), 1), strict=True)
        if p_values[i, j] <= ALPHA
    ]
    return (
        f"Significantly different over tasks: {'; '.join(different)}."
        if different
        else "No two methods differ significantly over tasks."
    )


def _significant(p: float) -> str:
    return ", significant" if p <= ALPHA else ", not significant"


def _iqm(
    columns: Sequence[Column], tasks: Sequence[str], labels: Mapping[Key, str]
) -> tuple[dict[str, Interval], dict[str, Interval], list[str]]:
    scores, differences, problems = {}, {}, []
    for key, name in labels.items():
        try:
            runs = {task: list(column.scores[key].values()) for task, column in zip(tasks, columns, strict=True)}
            scores[name] = iqm_interval(runs)
            if all(key != column.reference for column in columns):
                differences[name] = iqm_interval(
                    {
                        task: paired(column.scores[key], column.scores.get(column.reference, {})).differences
                        for task, column in zip(tasks, columns, strict=True)
                    }
                )
        except ValueError as problem:
            problems.append(f"{name}: no interquartile mean: {problem}.")
    return scores, differences, problems
