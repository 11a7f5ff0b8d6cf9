"""Report on tuning trials: their files, and the expected best score of k trials."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from xlora_bench.results.figures import style
from xlora_bench.results.figures.figures import best_methods, method_handles
from xlora_bench.results.frame.method_names import column_label
from xlora_bench.results.frame.pivot_axes import Key, keys, ordered
from xlora_bench.system.escape import csv
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
    """Write `trials.csv`, `expected_best.csv` and the figure `expected_best` (PNG, SVG, PDF) into `folder`."""
    by = [name for name in by if name in trials]
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "trials.csv", csv(trials))
    expected = curves(trials, by=by)
    write_atomically(folder / "expected_best.csv", csv(expected))
    try:
        _draw(expected, folder / "expected_best", by=by, labels=labels or {}, metrics=_metrics(trials))
    except Exception as error:
        log.warning("no figure of the expected best in %s: %s: %s", folder, type(error).__name__, error)


def _metrics(trials: pd.DataFrame) -> dict[Key, str]:
    """Return the headline metric by task."""
    if not {"task", "headline"} <= set(trials):
        return {}
    return {(task,): str(metric) for task, metric in trials.groupby("task")["headline"].first().dropna().items()}


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


def _draw(
    expected: pd.DataFrame, path: Path, *, by: Sequence[str], labels: Mapping[str, str], metrics: Mapping[Any, str]
) -> None:
    """Draw one line per group, one panel per task; `metrics` has the metric of each task, as a tuple of its axes."""
    if expected.empty:
        return
    tasks = [name for name in by if name == "task"]
    methods = [name for name in by if name != "task"]
    scores = expected.assign(
        panel=pd.Series(keys(expected, tasks), index=expected.index, dtype=object),
        method=pd.Series(keys(expected, methods), index=expected.index, dtype=object),
    )
    panel_keys = ordered(scores["panel"])[: style.MOST_PANELS]
    shown = best_methods(scores, "expected_best")
    others = scores["method"].nunique() - len(shown)
    titles = [": ".join(filter(None, (column_label(tasks, key), metrics.get(key, "score")))) for key in panel_keys]
    columns = 1 if len(panel_keys) <= 3 else 2
    legend = style.Legend(
        label="trials k",
        handles=method_handles(shown, labels) if methods else (),
        note="Expected best score of k trials." + (f" {others} more methods: see expected_best.csv." if others else ""),
    )
    figure, panels = style.panels(
        titles, [1.3 if columns == 1 else 0.95] * len(titles), columns=columns, left=0.42, legend=legend
    )
    for key, panel in zip(panel_keys, panels, strict=True):
        for number, method in enumerate(shown):
            line = scores[(scores["panel"] == key) & (scores["method"] == method)]
            look = style.look_of(number)
            aside = 0.015 * line["k"].max() * (number - (len(shown) - 1) / 2)  # equal lines are seen side by side
            panel.plot(line["k"] + aside, line["expected_best"], lw=0.8, ls=style.style_of(number), **look)
        panel.set_xlim(1 - 0.1 * scores["k"].max(), 1.1 * scores["k"].max())
        panel.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        panel.yaxis.set_major_locator(MaxNLocator(4))
        panel.ticklabel_format(axis="y", useOffset=False)
    style.save(figure, path)
