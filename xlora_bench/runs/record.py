"""Record of a run (`record.json`): the source of every table."""

import json
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self, get_origin

import numpy as np

from xlora_bench.system.io import file_hash, write_atomically

log = logging.getLogger(__name__)

SCHEMA = 2
RECORD = "record.json"
OLD_COMMIT = "428bd44"
"""The last commit whose code writes and verifies records of schema 1."""
STATUSES = ("completed", "collapsed", "failed")
_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


KINDS: dict[Any, str] = {
    str: "a text",
    str | None: "a text or null",
    int: "a whole number",
    dict[str, Any]: "a mapping",
}
NUMBER, NESTED = float | np.floating | np.integer, list | dict
LATER_KEYS = {"files", "attempt"}
"""Keys that records of older versions of schema 2 lack."""
DEEPEST = 50
"""Levels of nesting that a record may have; its readers recurse."""


class NewerRecordError(ValueError):
    """A record that a newer version wrote: it is neither read nor overwritten."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """Config, provenance, metrics and costs of one ended run.

    `metrics` holds `headline` (the name of the metric that ranks epochs), `history` (one dict per epoch), and the
    entries of `history` for the `best` and the `last` epoch. A `collapsed` run counts as a result; a `failed` run is
    trained again the next time it is requested. Times are ISO 8601 in UTC, costs are in seconds and bytes. In the file
    non-finite numbers are the strings `NaN`, `Infinity`, `-Infinity`, because JSON has no such numbers. `files` holds
    the `file_hash` of each file of the run by its name; records of older versions have none. `attempt` is the number of
    the attempt that was published.

    Raises:
        ValueError: if `status` or `schema` is unknown, a field has the wrong type, or a `completed` record has no
            headline metric at its best or last epoch.
    """

    run_id: str
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
    files: dict[str, Any] = field(default_factory=dict)
    attempt: int = 0
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        for item in fields(self):
            kind, value = dict if get_origin(item.type) is dict else item.type, getattr(self, item.name)
            if not isinstance(value, kind) or isinstance(value, bool):  # type: ignore[arg-type]
                raise ValueError(f"`{item.name}` of run {self.run_id} must be {KINDS[item.type]}")
        if self.status not in STATUSES:
            raise ValueError(f"`status` (={self.status!r}) of run {self.run_id} must be one of {', '.join(STATUSES)}")
        if self.schema not in (1, SCHEMA):
            raise ValueError(
                f"`schema` (={self.schema!r}) of run {self.run_id} must be 1 or {SCHEMA}; a newer version of "
                "xlora_bench wrote it: install that version"
            )
        self._check_parts()

    def _check_parts(self) -> None:
        """Raise a ValueError unless the mappings hold what their readers count on."""
        for group in ("model", "adapter", "task"):
            if not isinstance(self.config.get(group, {}), dict):
                raise ValueError(f"`config.{group}` of run {self.run_id} must be a mapping")
        for name in ("choices", "hashes", "versions", "code", "parameters", "cost", "ranks", "files"):
            for key, value in getattr(self, name).items():
                if isinstance(value, NESTED):
                    raise ValueError(f"`{name}.{key}` of run {self.run_id} must be one value, not {value!r}"[:300])
        headline, history = self.metrics.get("headline"), self.metrics.get("history", [])
        if not isinstance(headline, str | None) or not isinstance(history, list):
            raise ValueError(f"`metrics.headline` of run {self.run_id} must be a text, and `history` a list")
        entries = {name: self.metrics.get(name) for name in ("best", "last")}
        for name, entry in [*entries.items(), *(("history", entry) for entry in history)]:
            if entry is not None and not is_numeric(entry):
                raise ValueError(f"`metrics.{name}` of run {self.run_id} must map names to numbers")
            if self.status == "completed" and headline not in (entry or {}) and name in entries:
                raise ValueError(f"`metrics.{name}` of completed run {self.run_id} must hold the headline metric")

    def write(self, path: str | Path) -> None:
        """Write the record to `path` atomically: an interruption leaves the old file (or none) or the new one."""
        path = Path(path)
        assert self.schema == SCHEMA, "records of an older schema are read, never written"
        text = json.dumps(self.as_json(), indent=1, allow_nan=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text + "\n")

    def as_json(self) -> dict[str, Any]:
        """Return the record in JSON's own types."""
        plain: dict[str, Any] = json_value({item.name: getattr(self, item.name) for item in fields(self)})
        return plain

    @property
    def score(self) -> float | None:
        """The headline metric at its best epoch; None if there is none or it is not finite."""
        value = (self.metrics.get("best") or {}).get(self.metrics.get("headline"))
        return float(value) if value is not None and math.isfinite(value) else None

    def summary(self) -> str:
        """Return one line on how the run ended."""
        headline, best = self.metrics.get("headline"), self.metrics.get("best")
        score = f"{headline} {best[headline]:.4f} at epoch {best['epoch']}" if best else "no evaluation"
        return f"{self.status}{f' ({self.reason})' if self.reason else ''}, {score}"

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Return the record in `path`.

        Raises:
            ValueError: if the file cannot be read, is incomplete, or is not a record of schema 1 or `SCHEMA`.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise ValueError(f"record {path} cannot be read: {error}; delete it to train its run again") from error
        folder = Path(path).parent
        run_id = content.get("run_id") if isinstance(content, dict) else None
        if folder.parent.name == "runs" and run_id != folder.name and Path(path).name == RECORD:
            raise ValueError(f"record {path} is of the run {run_id}; move it to its own folder, or delete it")
        schema = content.get("schema") if isinstance(content, dict) else None
        if isinstance(schema, int) and schema > SCHEMA:
            raise NewerRecordError(
                f"{path} has schema {schema}, from a newer version of xlora-bench; update xlora-bench, or choose "
                "another folder with paths.results_dir"
            )
        try:
            return cls.from_json(content)
        except (TypeError, ValueError, AttributeError, RecursionError) as error:
            raise ValueError(f"{path} is not a record: {error}; delete it to train its run again") from error

    @classmethod
    def from_json(cls, content: Any) -> Self:
        """Return the record of which `content` is the `as_json` form.

        Raises:
            ValueError: if keys are missing or unknown, or a value is wrong.
        """
        if isinstance(content, dict) and content.get("schema") == 1:
            content = _of_schema_1(content)
        names = {item.name for item in fields(cls)}
        if not isinstance(content, dict) or set(content) | LATER_KEYS != names:
            wrong = sorted(names ^ set(content)) if isinstance(content, dict) else [type(content).__name__]
            raise ValueError(f"missing or unknown keys: {', '.join(wrong)}")
        check_depth(content)
        for key in ("metrics", "cost"):
            content[key] = _numbers(content[key])
        return cls(**content)


def is_numeric(entry: Any) -> bool:
    """Return whether `entry` maps names to numbers that a float can hold; NaN and infinity included."""
    if not isinstance(entry, dict):
        return False
    return all(isinstance(value, NUMBER) or (type(value) is int and abs(value) < 2**63) for value in entry.values())


def check_depth(value: dict[str, Any] | list[Any], depth: int = 0) -> None:
    """Raise a ValueError if lists and mappings are nested too deeply."""
    if depth == DEEPEST and value:
        raise ValueError(f"it is nested in more than {DEEPEST} levels")
    for item in value.values() if isinstance(value, dict) else value:
        if isinstance(item, NESTED):
            check_depth(item, depth + 1)


def finished(path: str | Path, *, run_id: str | None = None) -> Record | None:
    """Return the record in `path` if it is `completed` or `collapsed` and of schema `SCHEMA`, else None.

    With `run_id`, a record of another run is not returned either.
    """
    if not Path(path).exists():
        return None
    try:
        record = Record.read(path)
    except NewerRecordError:
        raise
    except ValueError as error:
        log.warning("%s", error)
        return None
    own = run_id is None or record.run_id == run_id
    return record if own and record.schema == SCHEMA and record.status != "failed" else None


def run_files(folder: Path) -> Iterator[Path]:
    """Yield the files of a run that its record holds hashes of: all but the record, W&B's files and the checkpoint."""
    for path in folder.rglob("*"):
        if path.is_file() and path.relative_to(folder).parts[0] not in (RECORD, "wandb", "checkpoint"):
            yield path


def damages(record: Record, folder: Path) -> list[str]:
    """Return one line per file of a run that is missing in its `folder`, or not the one that the record describes."""
    lines = []
    for name, expected in record.files.items():
        path = folder / name
        if not path.is_file():
            lines.append(f"{path} is missing")
        elif file_hash(path) != expected:
            lines.append(f"{path} is not the file that the record describes")
    return lines


def older_records(results_dir: Path) -> list[Path]:
    """Return the paths of the records of schema 1 in a results folder; schema 1 kept runs in `cells/`."""
    return sorted((results_dir / "cells").glob("*/record.json"))


def run_folder(results_dir: Path, run_id: str) -> Path:
    """Return the folder of a run: in `runs/`, or for a run of schema 1 in `cells/`."""
    folder = results_dir / "runs" / run_id
    return folder if folder.is_dir() else results_dir / "cells" / run_id


def record_paths(results_dir: Path, pattern: str = "*") -> list[Path]:
    """Return the paths of the records of a results folder whose run ids match `pattern`, schema 1 included."""
    paths = [*(results_dir / "runs").glob(f"{pattern}/record.json"), *older_records(results_dir)]
    return sorted(path for path in paths if path.parent.match(pattern))


def _of_schema_1(content: dict[str, Any]) -> dict[str, Any]:
    """Translate a record of schema 1: key `cell` becomes `run_id`, status `done` becomes `completed`."""
    if "run_id" in content:  # an archive written by the present code
        return content
    renamed = {("run_id" if key == "cell" else key): value for key, value in content.items()}
    if renamed.get("status") == "done":
        renamed["status"] = "completed"
    return renamed


def json_value(value: Any) -> Any:
    """Return `value` in JSON's own types, with non-finite numbers as the strings of a record."""
    if isinstance(value, dict):
        return {str(key): json_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(item) for item in value]
    if isinstance(value, np.generic):
        return json_value(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def _numbers(value: Any) -> Any:
    """Invert `json_value` for non-finite numbers: turn their strings back into floats."""
    if isinstance(value, dict):
        return {key: _numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    return _NON_FINITE.get(value, value) if isinstance(value, str) else value
