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


def weighted_scores(metric: str, runs: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return `metric` (R, b) of R runs with predictions (R, n), with example i weighted by `counts[:, i]` (b, n).

    Raises:
        ValueError: if the metric is unknown.
    """
    if metric not in _METRICS:
        raise ValueError(f"metric (={metric!r}) must be one of {', '.join(_METRICS)}")
    return _METRICS[metric](np.asarray(runs), np.asarray(labels), counts)


def _accuracy(runs: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return _total(runs == labels, counts) / counts.sum(axis=1)


def _f1(runs: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> np.ndarray:
    hits = _total((runs == 1) & (labels == 1), counts)
    return _ratio(2 * hits, _total(runs == 1, counts) + _total(labels == 1, counts))


def _matthews(runs: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Gorodkin's R_K: (c n - sum_k p_k t_k) / sqrt((n^2 - sum p_k^2)(n^2 - sum t_k^2)), 0 where undefined."""
    right, total = _total(runs == labels, counts), counts.sum(axis=1)
    products, predicted_squares, true_squares = np.zeros_like(right), np.zeros_like(right), np.zeros_like(total)
    for each in np.union1d(runs, labels):
        predicted, true = _total(runs == each, counts), _total(labels == each, counts)
        products += predicted * true
        predicted_squares += predicted**2
        true_squares += true**2
    return _ratio(right * total - products, np.sqrt((total**2 - predicted_squares) * (total**2 - true_squares)))


def _pearson(runs: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> np.ndarray:
    x, y = np.asarray(runs, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    x, y = x - x.mean(axis=1, keepdims=True), y - y.mean()
    means = (_total(each, counts) / counts.sum(axis=1) for each in (x, y, x * y, x * x, y * y))
    return _correlation(*means)


def _spearman(runs: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> np.ndarray:
    total, y = counts.sum(axis=1), _ranks(labels, counts)

    def of_run(predictions: np.ndarray) -> np.ndarray:
        x = _ranks(predictions, counts)
        return _correlation(*((counts * each).sum(axis=1) / total for each in (x, y, x * y, x * x, y * y)))

    return np.stack([of_run(predictions) for predictions in runs])


def _total(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the sum of `values` (..., n) over the examples of each draw: (..., b)."""
    total: np.ndarray = values.astype(np.float64) @ counts.T
    return total


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
