"""The one file a cell leaves behind, from which every table is made."""

import json
import logging
import math
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

import numpy as np

from xlora_bench.system.io import write_atomically

log = logging.getLogger(__name__)

SCHEMA = 1
STATUSES = ("done", "collapsed", "failed")
_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


@dataclass(frozen=True, kw_only=True)
class Record:
    """Everything known about one finished cell.

    `metrics` holds `headline` (the name of the metric that ranks), `history` (one dict per epoch) and the
    entries of `history` that were `best` and `last`. A `collapsed` cell is an outcome; a `failed` one is
    tried again when asked for. Times are ISO 8601 in UTC, costs in seconds and bytes. In the file, numbers
    that are not finite are the strings `NaN`, `Infinity`, `-Infinity`, so that it stays valid JSON.

    Raises:
        ValueError: if `status` is unknown, or a `done` record has no score at its best and last epoch.
    """

    cell: str
    status: str
    config: dict[str, Any]
    choices: dict[str, Any]
    seed: int
    started: str
    finished: str
    reason: str | None = None
    code: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, Any] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)
    hashes: dict[str, Any] = field(default_factory=dict)
    parameters: dict[str, Any] = field(default_factory=dict)
    ranks: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    cost: dict[str, Any] = field(default_factory=dict)
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(f"`status` (={self.status!r}) of cell {self.cell} must be one of {', '.join(STATUSES)}")
        if self.schema != SCHEMA:
            raise ValueError(f"`schema` (={self.schema!r}) of cell {self.cell} must be {SCHEMA}")
        for item in fields(self):
            if item.type == dict[str, Any] and not isinstance(getattr(self, item.name), dict):
                raise ValueError(f"`{item.name}` of cell {self.cell} must be a mapping")
        if self.status == "done":
            for epoch in ("best", "last"):
                if self.metrics.get("headline") not in (self.metrics.get(epoch) or {}):
                    raise ValueError(f"`metrics.{epoch}` of the done cell {self.cell} must hold the headline metric")

    def write(self, path: str | Path) -> None:
        """Write the record to `path`; interrupted anywhere, there is no file, the old one or this one."""
        path = Path(path)
        text = json.dumps(self.as_json(), indent=1, allow_nan=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text + "\n")

    def as_json(self) -> dict[str, Any]:
        """Return the record in JSON's own types."""
        plain: dict[str, Any] = _plain({item.name: getattr(self, item.name) for item in fields(self)})
        return plain

    @property
    def score(self) -> float | None:
        """The headline metric at its best epoch; None if there is none or it is not finite."""
        value = (self.metrics.get("best") or {}).get(self.metrics.get("headline"))
        return float(value) if value is not None and math.isfinite(value) else None

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Return the record in `path`.

        Raises:
            ValueError: if the file cannot be read, is not whole, or is not a record of this schema.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(f"record {path} cannot be read: {error}; delete it to train its cell again") from error
        try:
            return cls.from_json(content)
        except (TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"{path} is not a record: {error}; delete it to train its cell again") from error

    @classmethod
    def from_json(cls, content: Any) -> Self:
        """Return the record that `as_json` gave.

        Raises:
            ValueError: if it is not whole, or of another schema.
        """
        names = {item.name for item in fields(cls)}
        if not isinstance(content, dict) or set(content) != names:
            wrong = sorted(names ^ set(content)) if isinstance(content, dict) else [type(content).__name__]
            raise ValueError(f"missing or unknown keys: {', '.join(wrong)}")
        for key in ("metrics", "cost"):
            content[key] = _numbers(content[key])
        return cls(**content)


def finished(path: str | Path) -> Record | None:
    """Return the record in `path` if its cell need not be trained again (done or collapsed), else None."""
    if not Path(path).exists():
        return None
    try:
        record = Record.read(path)
    except ValueError as error:
        log.warning("%s", error)
        return None
    return record if record.status != "failed" else None


def _plain(value: Any) -> Any:
    """Return `value` in JSON's own types, numbers that are not finite as strings."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def _numbers(value: Any) -> Any:
    """Return `value` with the strings that `_plain` made from numbers turned back."""
    if isinstance(value, dict):
        return {key: _numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    return _NON_FINITE.get(value, value) if isinstance(value, str) else value
