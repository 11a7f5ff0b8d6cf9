"""Stored predictions of runs: read them, and check that they give the recorded score."""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from xlora_bench.data.task import REGRESSION_METRICS
from xlora_bench.results.frame.predictions_file import COLUMNS, FILE, read_main_split
from xlora_bench.results.statistics.resampled import weighted_scores
from xlora_bench.runs.record import run_folder

SAME = 1e-6
"""Tolerance of a recomputed score against the recorded one."""


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Examples of one column: `labels` (n,), and the predictions (n,) of each run by (method, seed).

    `problems` lists the runs without usable predictions, with the reason.
    """

    metric: str = ""
    labels: np.ndarray = field(default_factory=lambda: np.empty(0))
    runs: Mapping[tuple[Hashable, Hashable], np.ndarray] = field(default_factory=dict)
    problems: Sequence[str] = ()

    @property
    def is_classification(self) -> bool:
        """Whether predictions are classes, which are right or wrong."""
        return self.metric not in REGRESSION_METRICS


def read_examples(frame: pd.DataFrame, methods: pd.Series, results_dir: Path | None) -> Examples:
    """Return the predictions of the completed runs of one column; `methods` has the method of each row of `frame`."""
    done = frame[frame["status"] == "completed"]
    metrics = [str(name) for name in done["headline"].dropna().unique()]
    if results_dir is None or len(metrics) != 1:
        return Examples(problems=_impossible(results_dir, metrics))
    runs: dict[tuple[Hashable, Hashable], np.ndarray] = {}
    problems: dict[str, list[str]] = {}
    examples = None
    for row, method in zip(done.to_dict("records"), methods[done.index], strict=True):
        try:
            predictions = _reported(row, results_dir, metrics[0])
            if examples is not None and not _same_examples(predictions, examples):
                raise ValueError("evaluated on other examples than the first run of the column")
        except ValueError as problem:
            problems.setdefault(str(problem), []).append(str(row["run_id"]))
            continue
        examples = predictions if examples is None else examples
        runs[method, row["seed"]] = predictions["prediction"]
    return Examples(
        metric=metrics[0],
        labels=np.empty(0) if examples is None else examples["label"],
        runs=runs,
        problems=[f"Not compared by example, {reason}: {', '.join(run_ids)}." for reason, run_ids in problems.items()],
    )


def _impossible(results_dir: Path | None, metrics: Sequence[str]) -> list[str]:
    if results_dir is None:
        return ["Not compared by example: the scores are not those of one epoch, or the runs' folder is not known."]
    return [f"Not compared by example: {len(metrics)} headline metrics ({', '.join(metrics) or 'no completed run'})."]


def _reported(row: Mapping[Hashable, Any], results_dir: Path, metric: str) -> dict[str, np.ndarray]:
    """Return the predictions, sorted by idx, of the epoch (best or last) whose metric equals the row's `score`.

    Raises:
        ValueError: if there are no predictions, or neither epoch gives the score.
    """
    saved = read_main_split(run_folder(results_dir, str(row["run_id"])) / FILE, COLUMNS)
    best, last = row.get("best/epoch", math.nan), int(saved["epoch"].max())
    for epoch in dict.fromkeys([last if pd.isna(best) else int(best), last]):
        rows = np.flatnonzero(saved["epoch"] == epoch)
        rows = rows[np.argsort(saved["idx"][rows], kind="stable")]
        of_epoch = {name: column[rows] for name, column in saved.items()}
        if len(rows) and abs(_score(of_epoch, metric) - float(row["score"])) <= SAME:
            return of_epoch
    raise ValueError(f"predictions that give another {metric} than the score, in the best epoch and in the last")


def _score(examples: Mapping[str, np.ndarray], metric: str) -> float:
    predictions, labels = examples["prediction"], examples["label"]
    return float(weighted_scores(metric, predictions[None], labels, np.ones((1, len(labels))))[0, 0])


def _same_examples(other: Mapping[str, np.ndarray], first: Mapping[str, np.ndarray]) -> bool:
    return all(np.array_equal(other[name], first[name]) for name in ("idx", "label"))
