"""The mean over all tasks of a paper, seed by seed, as one more task of the frame."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from xlora_bench.results.frame.pivot_axes import keys
from xlora_bench.results.protocols.published import AVERAGE

WORST_FIRST = ("missing", "failed", "collapsed", "done")


def with_averages(frame: pd.DataFrame, *, axes: Sequence[str], tasks: Sequence[str]) -> pd.DataFrame:
    """Return `frame` and a row of task `average` for every seed at every place that has all `tasks`.

    Its score is their mean; it is done if all are, else as its worst task.
    """
    if len(tasks) < 2 or "task" not in axes:
        return frame
    names = [name for name in axes if name != "task" and name in frame]
    places = pd.Series(keys(frame, [*names, "seed"]), index=frame.index, dtype=object)
    found: list[dict[str, Any]] = []
    for place, cells in frame[frame["task"].isin(tasks)].groupby(places, sort=False):
        if set(cells["task"]) == set(tasks):
            worst = next(status for status in WORST_FIRST if status in set(cells["status"]))
            score = cells.groupby("task")["score"].first().mean(skipna=False) if worst == "done" else None
            row = dict(zip([*names, "seed"], place, strict=True))
            found.append({**row, "task": AVERAGE, "status": worst, "score": score})
    if not found:
        return frame
    joined = pd.concat([frame.astype(object), pd.DataFrame(found, dtype=object)], ignore_index=True)
    joined.attrs = frame.attrs
    return joined
