"""Paired and interleaved timing: on each item everybody takes a turn, so that the machine's drift meets all alike."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypeVar

import pandas as pd

Item = TypeVar("Item")
Clock = Literal["wall", "cpu"]
CLOCKS: dict[Clock, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
"""`cpu` is the processor's time on this process: with one thread it hardly depends on what else the machine does."""


def interleaved(
    works: Mapping[str, Callable[[Item], object]],
    items: Sequence[Item],
    *,
    warm: int = 1,
    clock: Clock = "wall",
    prepare: Callable[[str, Item], Item] = lambda name, item: item,
) -> pd.DataFrame:
    """Return seconds, a row per item and a column per work; who comes first changes from item to item.

    The first item is run `warm` times by each before anything is measured; what `prepare` does is not measured.
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
    """Return a row per work: median milliseconds, and median and quartiles of its ratio to `reference` item by item."""
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
