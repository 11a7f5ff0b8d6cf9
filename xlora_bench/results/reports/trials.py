"""Report on tuning trials: their files, and the expected best score of k trials."""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from xlora_bench.results.figures.figures import look_of, style_of
from xlora_bench.results.frame.method_names import method_name
from xlora_bench.results.frame.pivot_axes import Key, keys, ordered
from xlora_bench.system.escape import csv
from xlora_bench.system.escape import figure as figure_text
from xlora_bench.system.io import write_atomically

log = logging.getLogger(__name__)


def expected_best(scores: Sequence[float]) -> np.ndarray:
    """Return `E[max of k scores]` for `k = 1 ... n`, `(n,)`, from the n scores of one method.

    For k draws with replacement, with `v_1 <= ... <= v_n` and `P(i) = i / n`, the expectation is
    `sum_i v_i (P(i)^k - P(i - 1)^k)` (Dodge et al. 2019, arXiv 1909.03004, section 3.1).

    Raises:
        ValueError: if there is no score.
    """
    if not len(scores):
        raise ValueError("there is no score: the expected best needs at least one completed trial")
    ordered = np.sort(np.asarray(scores, dtype=float))
    count = len(ordered)
    below = np.arange(count + 1) / count
    return np.array([(np.diff(below**k) * ordered).sum() for k in range(1, count + 1)])


def curves(trials: pd.DataFrame, *, by: Sequence[str]) -> pd.DataFrame:
    """Return the expected best of k trials per group of `by`: columns `by`, `k`, `expected_best`, `trials`.

    A collapsed or failed trial gets the lowest score of all trials of its task. A group without a completed trial has
    no curve.
    """
    lines: list[dict[str, Any]] = []
    for group, scores in _scores(trials, by):
        values = expected_best(scores)
        name = dict(zip(by, group, strict=True))
        lines += [{**name, "k": k, "expected_best": value, "trials": len(values)} for k, value in enumerate(values, 1)]
    return pd.DataFrame(lines, columns=[*by, "k", "expected_best", "trials"])


def write_trials(
    trials: pd.DataFrame, folder: Path, *, by: Sequence[str], labels: Mapping[str, str] | None = None
) -> None:
    """Write `trials.csv`, `expected_best.csv` and, if a figure can be drawn, `expected_best.png` into `folder`."""
    by = [name for name in by if name in trials]
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "trials.csv", csv(trials))
    expected = curves(trials, by=by)
    write_atomically(folder / "expected_best.csv", csv(expected))
    try:
        _draw(expected, folder / "expected_best.png", by=by, labels=labels or {})
    except Exception as error:
        log.warning("no figure of the expected best in %s: %s: %s", folder, type(error).__name__, error)


def _scores(trials: pd.DataFrame, by: Sequence[str]) -> Iterator[tuple[Key, list[float]]]:
    scores = trials["score"].astype(float)
    tasks = pd.Series(keys(trials, ["task"]), index=trials.index, dtype=object)
    lowest = scores.groupby(tasks).transform("min")
    counted = scores.where(trials["status"] == "completed", lowest)
    groups = pd.Series(keys(trials, by), index=trials.index, dtype=object)
    for group in ordered(groups):
        of_group = groups == group
        if (of_group & (trials["status"] == "completed") & scores.notna()).any():
            yield group, counted[of_group].dropna().tolist()


def _draw(expected: pd.DataFrame, path: Path, *, by: Sequence[str], labels: Mapping[str, str]) -> None:
    """Draw one line per group, one panel per task."""
    if expected.empty:
        return
    names = [name for name in by if name != "task"]
    methods = pd.Series(keys(expected, names), index=expected.index, dtype=object)
    panels = list(expected.groupby("task", sort=False)) if "task" in by else [("", expected)]
    width = min(len(panels), 3)
    height = math.ceil(len(panels) / width)
    figure = Figure(figsize=(3.2 * width + 2.4, 2.8 * height), layout="constrained")
    grid = figure.subplots(height, width, squeeze=False).flatten()
    handles = {}
    for panel, (task, rows) in zip(grid, panels, strict=False):
        for number, method in enumerate(ordered(methods)):
            line = rows[methods[rows.index] == method]
            look = look_of(number) | {"linestyle": style_of(number), "linewidth": 1.2}
            (drawn,) = panel.plot(line["k"], line["expected_best"], **look)
            handles[figure_text(method_name(method, labels))] = drawn
        panel.set_title(figure_text(str(task)), fontsize=10)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    for panel in grid[len(panels) :]:
        panel.set_axis_off()
    figure.supxlabel("trials k", fontsize=10)
    figure.supylabel("expected best of k trials", fontsize=10)
    figure.legend(handles.values(), handles.keys(), loc="outside right upper", frameon=False, fontsize=9)
    figure.savefig(path, dpi=150)
