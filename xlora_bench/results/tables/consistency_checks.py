"""Consistency checks of a table: notes if its runs mix code, data, weights, library versions or precisions."""

from collections.abc import Sequence

import pandas as pd

from xlora_bench.results.frame.pivot_axes import is_missing, keys

AGAIN = "Compare such runs with care, or train them again with rerun=true."
ROUNDED = "Such runs round differently: compare them with care."
NAMED = 8
"""Number of run ids in a note; the rest is counted."""


def consistency_notes(frame: pd.DataFrame) -> list[str]:
    """Return one note for each of code, data, weights, versions and precision in which comparable runs differ.

    Data must be equal for equal task and task options, weights for equal model, the others for all runs.
    """
    task = [name for name in frame.columns if name == "task" or name.startswith("task.")]
    model = [name for name in frame.columns if name == "model" or name.startswith("model.")]
    notes = _note(frame.assign(state=_code(frame)), "state", within=[], what="code")
    notes += _note(frame, "hashes/data", within=task, what="data of the same task")
    notes += _note(frame, "hashes/weights", within=model, what="weights of the same model")
    for name in frame.columns:
        if name.startswith("versions/"):
            notes += _note(frame, name, within=[], what=f"versions of {name.removeprefix('versions/')}")
    notes += _note(frame.assign(state=_precision(frame)), "state", within=[], what="precision", advice=ROUNDED)
    return notes


def _precision(frame: pd.DataFrame) -> pd.Series:
    """Return, for each run, `trainer.precision` with a mark for `trainer.tf32`; None where it is not known."""
    names = ["trainer.precision", "trainer.tf32"]
    known = frame.reindex(columns=names).itertuples(index=False, name=None)
    texts = [None if is_missing(kind) else f"{kind}{' with TF32' if tf32 is True else ''}" for kind, tf32 in known]
    return pd.Series(texts, index=frame.index, dtype=object)


def _code(frame: pd.DataFrame) -> pd.Series:
    """Return, for each run, its commit as text, with a mark if the code differed from it."""
    commits = keys(frame, ["code/commit", "code/dirty"])
    texts = [None if commit is None else f"{commit[:9]}{' with changes' if dirty else ''}" for commit, dirty in commits]
    return pd.Series(texts, index=frame.index, dtype=object)


def _note(frame: pd.DataFrame, name: str, *, within: Sequence[str], what: str, advice: str = AGAIN) -> list[str]:
    if name not in frame:
        return []
    known = frame[frame[name].notna()]
    groups = pd.Series(keys(known, within), index=known.index, dtype=object)
    mixed: dict[str, list[str]] = {}
    for _, group in known.groupby(groups, sort=False):
        counts = group[name].value_counts(sort=True)
        for value in counts.index if len(counts) > 1 else []:
            mixed.setdefault(str(value), []).extend(group.loc[group[name] == value, "run_id"].astype(str))
    if not mixed:
        return []
    most = max(mixed, key=lambda value: len(mixed[value]))
    parts = [f"{value[:24]} ({_runs(runs, value == most)})" for value, runs in mixed.items()]
    return [f"Mixed {what}: {'; '.join(parts)}. {advice}"]


def _runs(runs: Sequence[str], is_most: bool) -> str:
    """Return the first run ids and the number of the others; for the most common value only the number."""
    if is_most:
        return f"{len(runs)} runs"
    more = f" and {len(runs) - NAMED} more" if len(runs) > NAMED else ""
    return f"{', '.join(runs[:NAMED])}{more}"
