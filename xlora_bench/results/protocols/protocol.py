"""Protocol of a paper, as data: what a measured number must share with a published one to be compared."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import pandas as pd

from xlora_bench.results.frame.pivot_axes import is_missing
from xlora_bench.runs.grid_rules import Rule, same

Selection = Literal["best", "last", "cross_split"]
Aggregation = Literal["mean", "median"]

BATCH = ("task.batch_size", "trainer.accumulate_grad_batches")
"""Keys whose product is the number of examples of one optimizer step."""
BASE: Mapping[str, Sequence[Any]] = {"model.dtype": [None, "float32"], "model.quantization": [None]}
"""Keys of a base in fewer bits, and the values of a paper whose `config` does not name them."""


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Everything besides the method that determines a number; None: not stated by the paper, so not checked.

    `split` is the reported split. `selection` is the scored epoch: `best` on the reported split, `last`, or
    `cross_split` (chosen on one half, scored on the other). `aggregation` is over the `n` runs. `metric`, `start`
    (`base`, or the task of the parent run; default `base`) and `effective_batch` (examples of one optimizer step) are
    by task. `head_counted`: whether published parameter counts include the head. `config` maps config keys to the
    values of the paper.

    Raises:
        ValueError: if `selection` or `aggregation` is unknown.
    """

    split: str | None = "validation"
    selection: Selection | None = None
    aggregation: Aggregation | None = None
    n: int | None = None
    metric: Mapping[str, str] = field(default_factory=dict)
    start: Mapping[str, str] | None = field(default_factory=dict)
    effective_batch: Mapping[str, int] = field(default_factory=dict)
    head_counted: bool = False
    config: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, known in (("selection", Selection), ("aggregation", Aggregation)):
            value = getattr(self, name)
            if value is not None and value not in get_args(known):
                allowed = ", ".join(get_args(known))
                raise ValueError(f"`paper.protocol.{name}` (={value!r}) must be one of {allowed}, or null (not stated)")

    @classmethod
    def parse(cls, node: Mapping[str, Any]) -> "Protocol":
        """Parse the `paper.protocol` node of a config."""
        unknown = sorted(set(node) - set(cls.__dataclass_fields__))
        if unknown:
            raise ValueError(
                f"unknown in `paper.protocol`: {', '.join(unknown)}; it may hold {', '.join(cls.__dataclass_fields__)}"
                " (keys of the config go below `config`)"
            )
        return cls(**node)

    @property
    def untold(self) -> list[str]:
        """The parts that the paper does not state."""
        return [name for name in ("split", "selection", "aggregation", "start") if getattr(self, name) is None]

    def reasons(self, run_rows: pd.DataFrame, *, rules: Sequence[Rule], **table: str) -> list[str]:
        """Return the reasons not to compare the numbers of `run_rows` with published ones; empty if comparable.

        `rules` are the grid rules of the paper (its recipe); `table` has `selection` and `aggregation` of the measured
        number.
        """
        stated = {name: getattr(self, name) for name in table}
        mismatches = [(name, stated[name], table[name]) for name in table if stated[name] not in (None, table[name])]
        for run in run_rows.to_dict("records"):
            mismatches += self._of_run({str(name): value for name, value in run.items()}, rules)
        lines = (
            f"{name}: published {_text(published)}, measured {_text(measured)}"
            for name, published, measured in mismatches
        )
        return list(dict.fromkeys(lines))

    def _of_run(self, run: Mapping[str, Any], rules: Sequence[Rule]) -> list[tuple[str, Any, Any]]:
        task = str(run.get("task"))
        checks: list[tuple[str, Any, Any]] = [
            ("metric", self.metric.get(task), run.get("headline")),
            ("split", self.split, _split(run)),
        ]
        if self.start is not None:
            checks.append(("start", self.start.get(task, "base"), _start(run)))
        batch = self.effective_batch.get(task)
        if batch is not None:
            checks.append(("effective batch", batch, _effective_batch(run)))
        wrong = [
            (name, published, measured)
            for name, published, measured in checks
            if published is not None and published != measured
        ]
        stated = {name: [value] for name, value in self.config.items()}
        for name, values in {**BASE, **stated, **recipe(rules, run)}.items():
            if name == "start_from" or (name == BATCH[0] and batch is not None):
                continue
            if not any(same(_value(run, name), _plain(value)) for value in values):
                wrong.append((name, values[0] if len(values) == 1 else values, _value(run, name)))
        return wrong


def recipe(rules: Sequence[Rule], run: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return, by key, the values that the matching `rules` allow for `run` (a row of the frame as a dict)."""
    allowed: dict[str, list[Any]] = {}
    for rule in rules:
        if rule.matches(lambda key: _value(run, key)):
            allowed |= {name: [value] for name, value in rule.set.items()}
            allowed |= {name: list(values) for name, values in rule.each.items()}
    return allowed


def _plain(value: Any) -> Any:
    """Return a config value in the form of the frame (lists as JSON text)."""
    return json.dumps(value) if isinstance(value, list | tuple) else value


def _value(run: Mapping[str, Any], name: str) -> Any:
    value = run.get(name)
    return None if is_missing(value) else value


def _split(run: Mapping[str, Any]) -> str:
    return "validation" if _value(run, "task.holdout") is None else "rows held out of the training split"


def _start(run: Mapping[str, Any]) -> str:
    start = _value(run, "start_from")
    if start is None:
        return "base"
    return next((task for task in _tasks(json.loads(start))), "another run")


def _tasks(overrides: Sequence[str]) -> Iterator[str]:
    for override in overrides:
        name, _, value = override.partition("=")
        if name == "task":
            yield value


def _effective_batch(run: Mapping[str, Any]) -> int:
    size = 1
    for name in BATCH:
        value = _value(run, name)
        size *= int(value) if isinstance(value, int | float) and value > 0 else 1
    return size


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
