"""Paired, interleaved timing: every contender is timed on each item, so a drift of the machine affects all alike."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypeVar

import pandas as pd

Item = TypeVar("Item")
Clock = Literal["wall", "cpu"]
CLOCKS: dict[Clock, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
"""`cpu` is the CPU time of this process: with one thread it depends little on other work on the machine."""


def interleaved(
    works: Mapping[str, Callable[[Item], object]],
    items: Sequence[Item],
    *,
    warm: int = 1,
    clock: Clock = "wall",
    prepare: Callable[[str, Item], Item] = lambda name, item: item,
) -> pd.DataFrame:
    """Return seconds, a row per item and a column per work; which work comes first changes from item to item.

    Before the measurement each work runs `warm` times on the first item. `prepare` is not measured.
    """
    names = list(works)
    for name in names:
        for _ in range(warm):
            works[name](prepare(name, items[0]))
    rows = []
    for index, item in enumerate(items):
        turn = index % len(names)
        order = names[turn:] + names[:turn]
        rows.append({name: timed(works[name], prepare(name, item), clock=clock) for name in order})
    return pd.DataFrame(rows, columns=names)


def timed(work: Callable[[Item], object], item: Item, *, clock: Clock = "wall") -> float:
    """Return the seconds of one call."""
    now = CLOCKS[clock]
    start = now()
    work(item)
    return now() - start


def ratios(seconds: pd.DataFrame, *, reference: str) -> pd.DataFrame:
    """Return a row per work: median milliseconds; median and quartiles over items of its ratio to `reference`."""
    relative = seconds.div(seconds[reference], axis=0).quantile([0.25, 0.5, 0.75])
    return pd.DataFrame(
        {
            "ms": 1e3 * seconds.median(),
            "ratio": relative.loc[0.5],
            "low": relative.loc[0.25],
            "high": relative.loc[0.75],
            "n": len(seconds),
        }
    )
