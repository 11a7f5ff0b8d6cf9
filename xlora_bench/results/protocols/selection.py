"""Selection of the scored epoch: scores of a run under each protocol, from its stored predictions."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from xlora_bench.results.frame.collect import Reasons
from xlora_bench.results.frame.method_names import listed_runs, method_name
from xlora_bench.results.frame.pivot_axes import is_missing, keys
from xlora_bench.results.frame.predictions_file import FILE, read_main_split
from xlora_bench.results.protocols.protocol import Selection
from xlora_bench.runs.read_records import INDEX
from xlora_bench.runs.record import run_folder
from xlora_bench.system.file_index import FileIndex

if TYPE_CHECKING:
    from xlora_bench.data.task import TextTask

COLUMNS: dict[Selection, str] = {"best": "score_best", "last": "score_last", "cross_split": "score_cross_split"}
"""By selection: the frame column of its score."""
MEANING: dict[Selection, str] = {
    "best": "Score at the best epoch on the reported split",
    "last": "Score at the last epoch",
    "cross_split": "Score on one half of the split at the epoch that is best on the other half, mean of both ways",
}
CODE = (
    *("data/metrics.py", "data/checks.py", "data/task.py"),
    *("results/frame/predictions_file.py", "results/protocols/selection.py"),
)
"""The modules that these scores depend on."""
HALVES_SEED = 20_240_501
"""Seed of the split into halves, which all runs of a task share."""

Score = Callable[[np.ndarray], float]
"""The score of the rows in a mask (n,)."""


def with_selections(frame: pd.DataFrame, results_dir: str | Path) -> pd.DataFrame:
    """Return `frame` with the column `score_cross_split`; `attrs["without_predictions"]` maps runs to reasons."""
    scores = scores_under(frame, results_dir, "cross_split")
    chosen = frame.assign(score_cross_split=scores)
    chosen.attrs = {**frame.attrs, "without_predictions": scores.attrs["problems"]}
    return chosen


def under(frame: pd.DataFrame, selection: Selection) -> pd.DataFrame:
    """Return `frame` with the score of `selection` in column `score`.

    Raises:
        ValueError: if no completed run has that score.
    """
    chosen = frame.assign(score=frame[COLUMNS[selection]])
    chosen.attrs = {**frame.attrs, "selection": selection}
    done = frame[frame["status"] == "completed"]
    if len(done) and done[COLUMNS[selection]].isna().all():
        reasons = dict.fromkeys(frame.attrs.get("without_predictions", {}).values())
        raise ValueError(
            f"`selection` (={selection}) needs the stored predictions, which none of the {len(done)} completed runs has"
            f" ({'; '.join(reasons) or 'they were not read'}); choose best or last, or train the runs again"
        )
    return chosen


def selection_notes(frame: pd.DataFrame, rows: Sequence[str], labels: Mapping[str, str]) -> list[str]:
    """Return notes on the optimism of `best` by method, and on the runs for which it is not known.

    The optimism is the mean of `best - cross_split` over the completed runs that have both. A method is named by its
    values of `rows`, replaced by `labels`.
    """
    done = frame[(frame["status"] == "completed") & frame["score_cross_split"].notna()]
    gaps = (done["score_best"] - done["score_cross_split"]).astype(float)
    methods = pd.Series(keys(done, rows), index=done.index, dtype=object)
    parts = [
        f"{method_name(method, labels)} {values.mean():+.4f} ({len(values)})"
        for method, values in gaps.groupby(methods, sort=False)
    ]
    title = "Optimism of the best epoch (best minus cross_split, mean over runs)"
    notes = [f"{title}: {'; '.join(parts)}."] if parts else []
    missing = frame.attrs.get("without_predictions", {})
    if missing:
        by_reason: dict[str, list[str]] = {}
        for run_id, reason in missing.items():
            by_reason.setdefault(reason, []).append(run_id)
        reasons = "; ".join(f"{listed_runs(run_ids)}: {reason}" for reason, run_ids in by_reason.items())
        notes.append(f"Without a score by halves: {reasons}.")
    return notes


def scores_under(frame: pd.DataFrame, results_dir: str | Path, selection: Selection) -> pd.Series:
    """Return the headline score of each run of a tidy frame under `selection`, from its stored predictions.

    `best`: the highest score over epochs; `last`: that of the last epoch; `cross_split`: see `cross_split_score`.
    NaN if unknown; `attrs["problems"]` maps the completed runs among those to the reason.
    """
    index = FileIndex(Path(results_dir) / INDEX / f"{selection}.json", code=CODE)
    scores, problems = [], {}
    columns = (frame[name] for name in ("run_id", "status", "headline"))
    for run_id, status, headline in zip(*columns, strict=True):
        score = np.nan
        if status == "completed":
            compute = partial(_run_score, headline=headline, selection=selection)
            path = run_folder(Path(results_dir), str(run_id)) / FILE
            try:
                score = index.content(f"{run_id} {headline}", path, compute) if path.exists() else compute(path)
            except ValueError as problem:
                problems[str(run_id)] = str(problem)
        scores.append(score)
    index.write(lambda name: run_folder(Path(results_dir), name.split(" ")[0]).is_dir())
    result = pd.Series(scores, index=frame.index, dtype=float, name=COLUMNS[selection])
    result.attrs["problems"] = Reasons(problems)
    return result


def cross_split_score(epochs: np.ndarray, idx: np.ndarray, score: Score) -> float:
    """Return a score without the optimism of choosing the epoch on the rows that are scored; `epochs` and `idx` (n,).

    The rows are split by `idx` into halves H1, H2. With `e(H)` the epoch with the highest score on H (the earliest of
    equals), the result is `(score(H2, e(H1)) + score(H1, e(H2))) / 2`.
    """
    inside = _inside_first_half(idx.tobytes(), str(idx.dtype))
    by_epoch = [_by_epoch(epochs, rows, score) for rows in (inside, ~inside)]
    best = [max(scores, key=lambda epoch: (scores[epoch], -epoch)) for scores in by_epoch]
    return (by_epoch[1][best[0]] + by_epoch[0][best[1]]) / 2


@lru_cache(maxsize=16)  # the runs of a task have the same examples
def _inside_first_half(idx: bytes, dtype: str) -> np.ndarray:
    values = np.frombuffer(idx, dtype)
    return np.isin(values, halves(np.unique(values)))


def halves(idx: np.ndarray) -> np.ndarray:
    """Return the first half (rounded up) of a fixed permutation of the sorted `idx (n,)`, the same for every run."""
    order = np.random.default_rng(HALVES_SEED).permutation(len(idx))
    return np.sort(idx)[order[: (len(idx) + 1) // 2]]


def _run_score(path: Path, *, headline: Any, selection: Selection) -> float:
    saved = read_main_split(path)
    if is_missing(headline):
        raise ValueError("its record names no headline metric")
    logits = np.stack([column for name, column in saved.items() if name.startswith("logit_")], axis=1)
    score = partial(_score, logits, saved["label"], str(headline))
    if selection == "cross_split":
        return cross_split_score(saved["epoch"], saved["idx"], score)
    by_epoch = _by_epoch(saved["epoch"], np.full(len(saved["epoch"]), True), score)
    return max(by_epoch.values()) if selection == "best" else by_epoch[max(by_epoch)]


def _by_epoch(epochs: np.ndarray, among: np.ndarray, score: Score) -> dict[int, float]:
    return {int(epoch): score(among & (epochs == epoch)) for epoch in np.unique(epochs[among])}


def _score(logits: np.ndarray, labels: np.ndarray, metric: str, rows: np.ndarray) -> float:
    """Compute a metric of `rows` with the code that training uses."""
    from xlora_bench.data import metrics  # noqa: PLC0415 - not needed for tables without predictions

    return metrics.compute(_task(logits.shape[1], metric), logits[rows], labels[rows])[metric]


@cache
def _task(width: int, metric: str) -> "TextTask":
    from xlora_bench.data.task import TextTask  # noqa: PLC0415 - slow to import

    classes = None if width == 1 else tuple(map(str, range(width)))
    return TextTask(name="stored", text_columns=("text",), labels=classes, metrics=(metric,), headline=metric)
