"""Metrics as scikit-learn and scipy define them, with one convention for collapsed runs."""

from collections.abc import Mapping

import numpy as np

from xlora_bench.data.checks import are_hidden
from xlora_bench.data.task import TextTask


def compute(task: TextTask, logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Return the task's metrics and `collapsed`.

    `logits` are (n, classes), or scores (n,) or (n, 1) for regression. `labels` are (n,). `collapsed` is 1.0 if all
    predictions are equal or a logit is not finite, else 0.0. An undefined metric (a correlation with a constant) is 0.
    If a logit is not finite, every metric is 0. Hidden labels (see `checked_labels`) have no metrics.

    Raises:
        ValueError: if there are not as many predictions as labels.
    """
    logits, labels = np.asarray(logits, dtype=np.float64), np.asarray(labels)
    if not np.isfinite(logits).all():
        return dict.fromkeys(task.metrics, 0.0) | {"collapsed": 1.0}
    predictions = logits.reshape(-1) if task.is_regression else logits.argmax(axis=1)
    if len(predictions) != len(labels):
        raise ValueError(f"{len(predictions)} predictions for {len(labels)} labels of task {task.name!r}")
    constant = _is_constant(predictions)
    named = () if are_hidden(labels) else task.metrics
    known = {**_METRICS, **task.own_metrics()}
    scores = {name: float(known[name](predictions, labels)) for name in named}
    return scores | {"collapsed": float(constant)}


def merge(task: TextTask, scores: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Return the scores of all eval splits as one dictionary.

    Metrics of the main split are called `<name>`, those of the others `<split>/<name>`. `collapsed` is the maximum.
    """
    merged: dict[str, float] = {}
    for split in task.eval_splits:
        prefix = "" if split == task.eval_splits[0] else f"{split}/"
        merged |= {prefix + name: value for name, value in scores[split].items()}
    return merged | {"collapsed": max(part["collapsed"] for part in scores.values())}


def _is_constant(values: np.ndarray) -> bool:
    """Return whether all values are equal up to float32 rounding, which depends on the batch shape."""
    return bool(np.ptp(values) <= 1e-6 * max(1.0, float(np.abs(values).max())))


def _accuracy(predictions: np.ndarray, labels: np.ndarray) -> float:
    return float((predictions == labels).mean())


def _f1(predictions: np.ndarray, labels: np.ndarray) -> float:
    from sklearn.metrics import f1_score  # noqa: PLC0415 - slow to import

    return float(f1_score(labels, predictions, pos_label=1, zero_division=0))


def _matthews(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Return the bits of scikit-learn's `matthews_corrcoef`, whose checks of its arguments take 20 times as long."""
    classes, both = np.unique(np.concatenate([labels, predictions]), return_inverse=True)
    true, predicted = (np.bincount(part, minlength=len(classes)) for part in np.split(both, [len(labels)]))
    n = float(len(labels))
    spread = (n**2 - float(predicted @ predicted)) * (n**2 - float(true @ true))
    right = float(np.count_nonzero(predictions == labels))
    return 0.0 if spread == 0 else float((right * n - float(true @ predicted)) / np.sqrt(spread))


def _pearson(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Return the bits of scipy's `pearsonr`, whose p-value and checks of its arguments take ten times as long."""
    if _undefined(predictions, labels):
        return 0.0
    correlation = float(np.clip(np.vecdot(_unit_vector(predictions), _unit_vector(labels)), -1.0, 1.0))
    return float(round(correlation)) if len(labels) == 2 else correlation


def _unit_vector(values: np.ndarray) -> np.ndarray:
    """Return `values - mean` divided by its norm, which does not overflow."""
    centred = np.asarray(values, dtype=np.float64)
    centred = centred - centred.mean()
    largest = np.abs(centred).max()
    return centred / (largest * np.linalg.norm(centred / largest, axis=-1))


def _spearman(predictions: np.ndarray, labels: np.ndarray) -> float:
    from scipy.stats import spearmanr  # noqa: PLC0415 - slow to import

    return 0.0 if _undefined(predictions, labels) else float(spearmanr(predictions, labels).statistic)


def _undefined(predictions: np.ndarray, labels: np.ndarray) -> bool:
    """Return whether the correlation is undefined: fewer than two rows, or a constant side."""
    return len(labels) < 2 or _is_constant(predictions) or _is_constant(labels)


_METRICS = {
    "accuracy": _accuracy,
    "f1": _f1,
    "matthews": _matthews,
    "pearson": _pearson,
    "spearman": _spearman,
}
