"""Averages over the tasks of a paper, one per seed, added to the frame as task `average`."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from xlora_bench.results.frame.pivot_axes import keys
from xlora_bench.results.protocols.published import AVERAGE

WORST_FIRST = ("missing", "failed", "collapsed", "completed")


def with_averages(frame: pd.DataFrame, *, axes: Sequence[str], tasks: Sequence[str]) -> pd.DataFrame:
    """Return `frame` plus a row of task `average` for each method, column and seed that has all `tasks`.

    Its score is the mean over the tasks. Its status is `completed` if all tasks are, else the worst of them.
    """
    if len(tasks) < 2 or "task" not in axes:
        return frame
    names = [name for name in axes if name != "task" and name in frame]
    groups = pd.Series(keys(frame, [*names, "seed"]), index=frame.index, dtype=object)
    result: list[dict[str, Any]] = []
    for key, runs in frame[frame["task"].isin(tasks)].groupby(groups, sort=False):
        if set(runs["task"]) == set(tasks):
            worst = next(status for status in WORST_FIRST if status in set(runs["status"]))
            score = runs.groupby("task")["score"].first().mean(skipna=False) if worst == "completed" else None
            row = dict(zip([*names, "seed"], key, strict=True))
            result.append({**row, "task": AVERAGE, "status": worst, "score": score})
    if not result:
        return frame
    joined = pd.concat([frame.astype(object), pd.DataFrame(result, dtype=object)], ignore_index=True)
    joined.attrs = frame.attrs
    return joined
