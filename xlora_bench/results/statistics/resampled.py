"""Task metrics on bootstrap resamples: each example is weighted by the number of times it was drawn.

Equal to `xlora_bench.data.metrics` on the repeated rows, but vectorised over resamples.
"""

from collections.abc import Callable, Iterator

import numpy as np

CHUNK = 4_000_000
"""Largest number of elements of one block of draws."""


def draws(n: int, *, resamples: int, seed: int = 0) -> Iterator[np.ndarray]:
    """Yield blocks (b, n) of counts: how often each of n examples is drawn in n draws with replacement."""
    rng, left = np.random.default_rng(seed), resamples
    while left > 0:
        rows = min(left, max(1, CHUNK // n))
        indices = rng.integers(0, n, size=(rows, n)) + n * np.arange(rows)[:, None]
        yield np.bincount(indices.ravel(), minlength=rows * n).reshape(rows, n).astype(np.float64)
        left -= rows


def weighted_score(metric: str, predictions: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return `metric` (b,) of predictions (n,), with example i weighted by `counts[:, i]`, `counts` (b, n).

    Raises:
        ValueError: if the metric is unknown.
    """
    if metric not in _METRICS:
        raise ValueError(f"metric (={metric!r}) must be one of {', '.join(_METRICS)}")
    return _METRICS[metric](np.asarray(predictions), np.asarray(labels), counts)


def _accuracy(predictions: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return counts @ (predictions == labels).astype(np.float64) / counts.sum(axis=1)


def _f1(predictions: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> np.ndarray:
    hits = counts @ ((predictions == 1) & (labels == 1)).astype(np.float64)
    predicted = counts @ ((predictions == 1).astype(np.float64) + (labels == 1))
    return _ratio(2 * hits, predicted)


def _matthews(predictions: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Gorodkin's R_K: (c n - sum_k p_k t_k) / sqrt((n^2 - sum p_k^2)(n^2 - sum t_k^2)), 0 where undefined."""
    classes = np.unique(np.concatenate([predictions, labels]))
    predicted = counts @ (predictions[:, None] == classes).astype(np.float64)
    true = counts @ (labels[:, None] == classes).astype(np.float64)
    right, total = counts @ (predictions == labels).astype(np.float64), counts.sum(axis=1)
    spread = (total**2 - (predicted**2).sum(axis=1)) * (total**2 - (true**2).sum(axis=1))
    return _ratio(right * total - (predicted * true).sum(axis=1), np.sqrt(spread))


def _pearson(predictions: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> np.ndarray:
    x = np.asarray(predictions, dtype=np.float64)
    y = np.asarray(labels, dtype=np.float64)
    x, y = x - x.mean(), y - y.mean()
    moments = counts @ np.stack([x, y, x * y, x * x, y * y], axis=1) / counts.sum(axis=1, keepdims=True)
    return _correlation(*moments.T)


def _spearman(predictions: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> np.ndarray:
    x, y = _ranks(predictions, counts), _ranks(labels, counts)
    sums = ((counts * each).sum(axis=1) for each in (x, y, x * y, x * x, y * y))
    return _correlation(*(each / counts.sum(axis=1) for each in sums))


def _ranks(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the centred rank (b, n) of each example among the drawn ones; ties get their mean rank."""
    distinct, index = np.unique(values, return_inverse=True)
    order = np.argsort(index, kind="stable")
    starts = np.searchsorted(index[order], np.arange(len(distinct)))
    drawn = np.add.reduceat(counts[:, order], starts, axis=1)
    middle = np.cumsum(drawn, axis=1) - drawn / 2
    return middle[:, index] - counts.sum(axis=1, keepdims=True) / 2


def _correlation(x: np.ndarray, y: np.ndarray, xy: np.ndarray, xx: np.ndarray, yy: np.ndarray) -> np.ndarray:
    """Return the correlation from the means of x, y and their products."""
    spread = np.maximum(xx - x * x, 0) * np.maximum(yy - y * y, 0)
    return _ratio(xy - x * y, np.sqrt(spread))


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.zeros_like(above), where=below > 1e-12)


_METRICS: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]] = {
    "accuracy": _accuracy,
    "f1": _f1,
    "matthews": _matthews,
    "pearson": _pearson,
    "spearman": _spearman,
}
