"""Stored predictions of runs: read them, and check that they give the recorded score."""

import zlib
from base64 import b64decode, b64encode
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from xlora_bench.data.task import REGRESSION_METRICS
from xlora_bench.results.frame.predictions_file import COLUMNS, FILE, read_main_split
from xlora_bench.results.statistics.resampled import weighted_scores
from xlora_bench.runs.read_records import INDEX
from xlora_bench.runs.record import run_folder
from xlora_bench.system.file_index import FileIndex

SAME = 1e-6
"""Tolerance of a recomputed score against the recorded one."""
CODE = tuple(
    f"results/{name}.py" for name in ("comparison/predictions", "frame/predictions_file", "statistics/resampled")
)
"""The modules that the contents of the index depend on."""


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


class PredictionsIndex:
    """The predictions of the best and of the last epoch of each run in a results folder, and their scores.

    They come from an index of files, so that a run that has not changed is not read again.
    """

    def __init__(self, results_dir: Path) -> None:
        self.results_dir = results_dir
        self._index = FileIndex(results_dir / INDEX / "predictions.json", code=CODE)

    def reported(self, run_id: str, *, metric: str, score: float, best: int | None) -> dict[str, np.ndarray]:
        """Return `idx`, `label` and `prediction` (n,), sorted by idx, of the epoch whose metric equals `score`.

        The epoch `best` is tried first, then the last one.

        Raises:
            ValueError: if there are no predictions, or neither epoch gives the score.
        """
        path = run_folder(self.results_dir, run_id) / FILE
        compute = partial(_of_epochs, metric=metric, best=best)
        saved = self._index.content(f"{run_id} {metric} {best}", path, compute) if path.exists() else compute(path)
        for epoch in saved.values():
            if abs(epoch["score"] - score) <= SAME:
                shared = {name: _shared_array(text) for name, text in epoch["examples"].items()}
                return {**shared, "prediction": _array(epoch["prediction"])}
        raise ValueError(f"predictions that give another {metric} than the score, in the best epoch and in the last")

    def write(self) -> None:
        """Write the index if enough is new."""
        self._index.write(lambda name: run_folder(self.results_dir, name.split(" ")[0]).is_dir())


def read_examples(frame: pd.DataFrame, methods: pd.Series, predictions: PredictionsIndex | None) -> Examples:
    """Return the predictions of the completed runs of one column; `methods` has the method of each row of `frame`."""
    done = frame[frame["status"] == "completed"]
    metrics = [str(name) for name in done["headline"].dropna().unique()]
    if predictions is None or len(metrics) != 1:
        return Examples(problems=_impossible(predictions, metrics))
    runs: dict[tuple[Hashable, Hashable], np.ndarray] = {}
    problems: dict[str, list[str]] = {}
    first = None
    known = zip(done["run_id"], done["seed"], done["score"], _best_epochs(done), methods[done.index], strict=True)
    for run_id, seed, score, best, method in known:
        try:
            examples = predictions.reported(str(run_id), metric=metrics[0], score=float(score), best=best)
            if first is not None and not _same_examples(examples, first):
                raise ValueError("evaluated on other examples than the first run of the column")
        except ValueError as problem:
            problems.setdefault(str(problem), []).append(str(run_id))
            continue
        first = examples if first is None else first
        runs[method, seed] = examples["prediction"]
    return Examples(
        metric=metrics[0],
        labels=np.empty(0) if first is None else first["label"],
        runs=runs,
        problems=[f"Not compared by example, {reason}: {', '.join(run_ids)}." for reason, run_ids in problems.items()],
    )


def _best_epochs(frame: pd.DataFrame) -> list[int | None]:
    epochs = frame.get("best/epoch", pd.Series(np.nan, index=frame.index))
    return [None if pd.isna(epoch) else int(epoch) for epoch in epochs]


def _impossible(predictions: PredictionsIndex | None, metrics: Sequence[str]) -> list[str]:
    if predictions is None:
        return ["Not compared by example: the scores are not those of one epoch, or the runs' folder is not known."]
    return [f"Not compared by example: {len(metrics)} headline metrics ({', '.join(metrics) or 'no completed run'})."]


def _of_epochs(path: Path, *, metric: str, best: int | None) -> dict[str, Any]:
    """Return `score`, `examples` and `prediction` of the best epoch, if it is there, and of the last one."""
    saved = read_main_split(path, COLUMNS)
    last = int(saved["epoch"].max())
    epochs: dict[str, Any] = {}
    for epoch in dict.fromkeys([last if best is None else best, last]):
        rows = np.flatnonzero(saved["epoch"] == epoch)
        if len(rows):
            rows = rows[np.argsort(saved["idx"][rows], kind="stable")]
            of_epoch = {name: saved[name][rows] for name in ("idx", "label", "prediction")}
            texts = {name: _text(array) for name, array in of_epoch.items()}
            examples = {name: texts[name] for name in ("idx", "label")}
            score = _score(of_epoch, metric)
            epochs[str(epoch)] = {"score": score, "examples": examples, "prediction": texts["prediction"]}
    return epochs


def _text(array: np.ndarray) -> str:
    """Return `array` (n,) as a text: its type, and its bytes, compressed."""
    return f"{array.dtype.str} {b64encode(zlib.compress(array.tobytes(), 1)).decode()}"


def _array(text: str) -> np.ndarray:
    """Return the array of a text of `_text`."""
    kind, _, content = text.partition(" ")
    return np.frombuffer(zlib.decompress(b64decode(content)), kind)


@lru_cache(maxsize=32)  # the runs of a task have the same examples
def _shared_array(text: str) -> np.ndarray:
    return _array(text)


def _score(examples: Mapping[str, np.ndarray], metric: str) -> float:
    predictions, labels = examples["prediction"], examples["label"]
    return float(weighted_scores(metric, predictions[None], labels, np.ones((1, len(labels))))[0, 0])


def _same_examples(other: Mapping[str, np.ndarray], first: Mapping[str, np.ndarray]) -> bool:
    return all(np.array_equal(other[name], first[name]) for name in ("idx", "label"))
