"""What the trials of a tuning say: the files beside a sweep's table, and the expected best of k trials."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from xlora_bench.results.record import write_atomically

log = logging.getLogger(__name__)

BY = ("adapter", "init_scheme", "task")
"""What gets its own tuning, unless `tuning.by` says otherwise."""


def expected_best(scores: Sequence[float]) -> np.ndarray:
    """Return `E[max of k scores]` for `k = 1 ... n`, `(n,)`, from the n scores of one method.

    The k are drawn with replacement: with `v_1 <= ... <= v_n` and `P(i) = i / n`, the expectation is
    `sum_i v_i (P(i)^k - P(i - 1)^k)` (Dodge et al. 2019, arXiv 1909.03004, section 3.1).

    Raises:
        ValueError: if there is no score.
    """
    if not len(scores):
        raise ValueError("there is no score: the expected best needs at least one trial that is done")
    ordered = np.sort(np.asarray(scores, dtype=float))
    count = len(ordered)
    below = np.arange(count + 1) / count
    return np.array([(np.diff(below**k) * ordered).sum() for k in range(1, count + 1)])


def curves(trials: pd.DataFrame, *, by: Sequence[str]) -> pd.DataFrame:
    """Return the expected best of k trials per group of `by`: columns `by`, `k`, `expected_best`, `trials`."""
    lines: list[dict[str, Any]] = []
    for group, scores in _scores(trials, by):
        values = expected_best(scores)
        name = dict(zip(by, group, strict=True))
        lines += [{**name, "k": k, "expected_best": value, "trials": len(values)} for k, value in enumerate(values, 1)]
    return pd.DataFrame(lines, columns=[*by, "k", "expected_best", "trials"])


def write_trials(trials: pd.DataFrame, folder: Path, *, by: Sequence[str]) -> None:
    """Write `trials.csv`, `expected_best.csv` and, if a figure can be drawn, `expected_best.png` into `folder`."""
    by = [name for name in by if name in trials]
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "trials.csv", trials.to_csv(index=False))
    expected = curves(trials, by=by)
    write_atomically(folder / "expected_best.csv", expected.to_csv(index=False))
    try:
        _draw(expected, folder / "expected_best.png", by=by)
    except Exception as error:
        log.warning("no figure of the expected best in %s: %s: %s", folder, type(error).__name__, error)


def _scores(trials: pd.DataFrame, by: Sequence[str]) -> Iterator[tuple[tuple[Any, ...], list[float]]]:
    done = trials[(trials["status"] == "done") & trials["score"].notna()]
    for group, rows in done.groupby(list(by), dropna=False, sort=False) if by else [((), done)]:
        if len(rows):
            yield group, rows["score"].astype(float).tolist()


def _draw(expected: pd.DataFrame, path: Path, *, by: Sequence[str]) -> None:
    """Draw a line per group, a panel per task."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - slow to import
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415

    panels = list(expected.groupby("task", sort=False)) if "task" in by else [("", expected)]
    if expected.empty:
        return
    figure = Figure(figsize=(4.2 * len(panels) + 0.8, 3.4), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    names = [name for name in by if name != "task"]
    for axis, (task, panel) in zip(axes, panels, strict=True):
        for group, line in panel.groupby(names, dropna=False, sort=False) if names else [((), panel)]:
            axis.plot(line["k"], line["expected_best"], marker="o", label=" ".join(map(str, group)))
        axis.set(xlabel="trials k", ylabel="expected best score", title=str(task))
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[-1].legend(fontsize="small")
    figure.savefig(path, dpi=150)
