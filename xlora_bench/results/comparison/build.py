"""Build the comparison from the tidy frame: choose methods, reference, columns and tasks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from xlora_bench.results.comparison.across import Across, compare_across
from xlora_bench.results.comparison.columns import Column, compare_column
from xlora_bench.results.comparison.predictions import PredictionsIndex, read_examples
from xlora_bench.results.frame.method_names import column_label, method_name
from xlora_bench.results.frame.pivot_axes import Key, PivotAxes, keys, ordered
from xlora_bench.results.frame.trials import without_trials

USUAL = {"adapter": "lora", "init_scheme": "kaiming", "targets": "attention_qv"}
"""Default reference: the method that matches these values best, keys earlier on the row axes first."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Comparisons of all columns with `reference`, and of all settings over their tasks."""

    axes: PivotAxes
    reference: Key
    labels: Mapping[Key, str]
    columns: list[Column]
    across: list[Across]
    notes: list[str] = field(default_factory=list)


def compare(
    frame: pd.DataFrame,
    *,
    axes: PivotAxes,
    row_labels: Mapping[str, str],
    reference: Mapping[str, str] | None = None,
    results_dir: Path | None = None,
) -> Comparison | None:
    """Return the comparison of a tidy frame on the axes of its table; None if there is only one method.

    The scores are the frame's `score`; tuning trials are left out. With selection `cross_split`, whose scores are not
    those of one epoch, nothing is compared by example. `reference` names the method to compare with by its row axes,
    such as `{"adapter": "lora"}`.

    Raises:
        ValueError: if `reference` does not match exactly one method.
    """
    if frame.attrs.get("selection") == "cross_split":
        results_dir = None
    predictions = None if results_dir is None else PredictionsIndex(results_dir)
    frame = without_trials(frame).reset_index(drop=True)
    methods = pd.Series(keys(frame, axes.rows), index=frame.index, dtype=object)
    column_keys = pd.Series(keys(frame, axes.columns), index=frame.index, dtype=object)
    order = ordered(methods)
    if len(order) < 2:
        return None
    chosen = find_reference(order, axes.rows, reference)
    labels = {key: method_name(key, row_labels) for key in order}
    columns, notes = [], []
    for column_key in ordered(column_keys):
        here = frame[column_keys == column_key]
        among = methods[here.index]
        try:
            examples = read_examples(here, among, predictions)
            columns.append(
                compare_column(
                    here, among, key=column_key, order=order, reference=chosen, examples=examples, labels=labels
                )
            )
        except ValueError as problem:
            notes.append(f"{column_label(axes.columns, column_key) or 'The runs'}: not compared: {problem}.")
    if predictions is not None:
        predictions.write()
    across, test_notes = _across(columns, axes, labels)
    return Comparison(
        axes=axes, reference=chosen, labels=labels, columns=columns, across=across, notes=[*notes, *test_notes]
    )


def find_reference(order: Sequence[Key], names: Sequence[str], wanted: Mapping[str, str] | None = None) -> Key:
    """Return the method that others are compared with: the one that matches `wanted`, else the best match of `USUAL`.

    Raises:
        ValueError: if `wanted` does not match exactly one method.
    """
    if wanted is None:
        return max(order, key=lambda key: [value == USUAL.get(name) for name, value in zip(names, key, strict=True)])
    texts = [dict(zip(names, map(str, key), strict=True)) for key in order]
    matching = [key for key, text in zip(order, texts, strict=True) if {**text, **wanted} == text]
    if len(matching) != 1:
        methods = "; ".join(" ".join(f"{name}={value}" for name, value in text.items()) for text in texts)
        raise ValueError(
            f"reference (={dict(wanted)}) must fit exactly one method of the table, fits {len(matching)}: {methods}"
        )
    return matching[0]


def _across(columns: Sequence[Column], axes: PivotAxes, labels: Mapping[Key, str]) -> tuple[list[Across], list[str]]:
    """Return the comparison over tasks for each combination of the other column axes, and notes on missing ones."""
    if "task" not in axes.columns:
        return [], []
    position = axes.columns.index("task")
    names = [name for name in axes.columns if name != "task"]
    settings: dict[Key, list[Column]] = {}
    for column in columns:
        settings.setdefault(column.key[:position] + column.key[position + 1 :], []).append(column)
    result, notes = [], []
    for setting, members in settings.items():
        try:
            tasks = [str(column.key[position]) for column in members]
            result.append(compare_across(members, tasks, setting=setting, labels=labels))
        except ValueError as problem:
            where = f" ({column_label(names, setting)})" if setting else ""
            notes.append(f"Not compared over tasks{where}: {problem}.")
    return result, notes
