"""What to do about a sweep in which most runs collapsed: one or two sentences under its table."""

import math
from collections.abc import Iterable, Sequence

import pandas as pd

from xlora_bench.results.frame.trials import without_trials

SHARE = 0.5
"""More collapsed runs than this share of the ended ones are a fault of the sweep, not a property of a method."""
FEW_STEPS = 100
"""Fewer optimizer steps than this are, with constant predictions, too little training."""


def collapse_lines(frame: pd.DataFrame) -> list[str]:
    """Return what happened and the way out, a line per kind of collapse; empty unless most ended runs collapsed."""
    runs = without_trials(frame)
    ended = int((runs["status"] != "missing").sum())
    collapsed = runs[runs["status"] == "collapsed"]
    if len(collapsed) <= SHARE * ended:
        return []
    constant = collapsed["reason"].astype(str).str.startswith("constant predictions")
    kinds = (
        ("constant predictions", collapsed[constant], _too_little),
        ("not finite", collapsed[~constant], _too_high),
    )
    return [
        f"{len(group)} of {ended} runs collapsed ({name}): {advice(group)}"
        for name, group, advice in kinds
        if len(group)
    ]


def _too_little(runs: pd.DataFrame) -> str:
    steps = [step_count(run) for run in runs.to_dict("records")]
    if all(count is None or count < FEW_STEPS for count in steps):
        return (
            f"{_training(runs)} is too little to learn more than the most frequent label. Raise optimizer.lr, "
            "task.max_train_rows or trainer.max_epochs."
        )
    return (
        f"{_training(runs)} ended in one label for every row. Change optimizer.lr (higher if the training loss hardly "
        "falls, lower if it jumps), or raise task.max_train_rows."
    )


def _too_high(runs: pd.DataFrame) -> str:
    return (
        f"{_training(runs)} left the range of floating-point numbers. Lower optimizer.lr, raise scheduler.warmup, or "
        "take trainer.precision=32-true."
    )


def _training(runs: pd.DataFrame) -> str:
    """Return the extent of the training of some runs: optimizer steps, learning rate, training rows."""
    listed = runs.to_dict("records")
    steps, rows = (_span([count(run) for run in listed]) for count in (step_count, row_count))
    rates = ", ".join(
        f"{rate:g}" for rate in sorted({float(run["optimizer.lr"]) for run in listed if _known(run, "optimizer.lr")})
    )
    parts = [
        f"training for {steps} optimizer step{'' if steps == '1' else 's'}" if steps else "training",
        f"at optimizer.lr={rates}" if rates else "",
        f"on {rows} training rows" if rows else "",
    ]
    return " ".join(part for part in parts if part)


def row_count(run: dict) -> int | None:
    """Return the number of training rows of a run: samples seen per epoch, else `task.max_train_rows`, else None."""
    if all(_known(run, key) for key in ("cost/samples_per_second", "cost/train_seconds", "last/epoch")):
        return round(run["cost/samples_per_second"] * run["cost/train_seconds"] / run["last/epoch"])
    return int(run["task.max_train_rows"]) if _known(run, "task.max_train_rows") else None


def step_count(run: dict) -> int | None:
    """Return the number of optimizer steps of a whole run; None if its rows or its batch size are not known."""
    rows = row_count(run)
    if rows is None or not all(_known(run, key) for key in ("task.batch_size", "trainer.max_epochs")):
        return None
    accumulated = run["trainer.accumulate_grad_batches"] if _known(run, "trainer.accumulate_grad_batches") else 1
    batches = math.ceil(rows / run["task.batch_size"])
    return int(math.ceil(batches / accumulated) * run["trainer.max_epochs"])


def _known(run: dict, key: str) -> bool:
    value = run.get(key)
    return isinstance(value, int | float) and not math.isnan(value)


def _span(numbers: Iterable[int | None]) -> str:
    known: Sequence[int] = sorted({number for number in numbers if number is not None})
    return "" if not known else f"{known[0]:,}" if len(known) == 1 else f"{known[0]:,} to {known[-1]:,}"
