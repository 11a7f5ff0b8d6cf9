"""Predictions of a run (`predictions.parquet`): one row per epoch, split and example."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pyarrow.parquet import ParquetFile

FILE = "predictions.parquet"
COLUMNS = ("epoch", "split", "idx", "label", "prediction")
"""Columns beside the logits `logit_0`, `logit_1`, ...; all hold numbers but `split`."""


def read_predictions(path: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Return the predictions in `path`: all columns, or only `columns`.

    Raises:
        ValueError: if there is no such file, it is damaged, or lacks a wanted column, or that has no numbers.
    """
    frame = _read(path, pd.read_parquet)
    _check(frame, columns or _all_columns(frame), rows=len(frame))
    return frame if columns is None else frame[list(columns)]


class _Kept:
    """What was read once and is read again later; at most `left` bytes of arrays."""

    def __init__(self, left: int) -> None:
        self.left = left
        self._contents: dict[Hashable, dict[str, np.ndarray]] = {}

    def take(self, key: Hashable) -> dict[str, np.ndarray] | None:
        """Return the content at `key`, which is kept no longer; None if there is none."""
        content = self._contents.pop(key, None)
        self.left += _bytes(content or {})
        return content

    def keep(self, key: Hashable, content: dict[str, np.ndarray]) -> None:
        """Keep `content` if there is room for it."""
        if _bytes(content) <= self.left:
            self.left -= _bytes(content)
            self._contents[key] = content


_KEPT = _Kept(256 * 2**20)


def read_main_split(path: Path, columns: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """Return the columns of the first split in the file, which is the main one, as arrays: four times as fast.

    A report needs each file twice, so what is read is kept for the next call, within 256 MiB.

    Raises:
        ValueError: as `read_predictions`.
    """
    key = (path, path.stat().st_mtime_ns) if path.exists() else None
    content = _KEPT.take(key)
    if content is None:
        content = _main_split(_read(path, _table))
        _KEPT.keep(key, content)
    names = columns or _all_columns(content)
    _check(content, names, rows=len(content.get("split", ())))
    return {name: content[name] for name in names if name != "split"}


def _main_split(table: Any) -> dict[str, np.ndarray]:
    """Return the columns of the main split; of the column `split` one entry."""
    arrays = {name: table[name].to_numpy() for name in table.column_names}
    split = arrays.get("split", np.empty(0))
    main = split == split[0] if len(split) else split
    content = {name: array if main.all() else array[main] for name, array in arrays.items() if name != "split"}
    return content if "split" not in arrays else {**content, "split": split[:1]}


def _bytes(content: Mapping[str, np.ndarray]) -> int:
    return sum(array.nbytes for array in content.values())


def _read(path: Path, read: Callable[[Path], Any]) -> Any:
    if not path.exists():
        raise ValueError(f"its {FILE} is not there; rerun=true trains it again")
    try:
        return read(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"its {FILE} cannot be read ({error}); rerun=true trains it again") from error


def _table(path: Path) -> Any:
    with ParquetFile(path) as file:
        return file.read(use_threads=False)


def _all_columns(names: Iterable[str]) -> list[str]:
    return [*COLUMNS, *([name for name in names if name.startswith("logit_")] or ["logit_0"])]


def _check(content: Mapping[str, Any] | pd.DataFrame, columns: Sequence[str], *, rows: int) -> None:
    """Raise a ValueError unless the wanted columns are there and hold numbers, and there is a row."""
    numbers = [name for name in columns if name != "split"]
    lacking = [
        name for name in numbers if name not in content or not pd.api.types.is_numeric_dtype(content[name].dtype)
    ]
    lacking += [] if "split" in content else ["split"]
    if lacking or not rows:
        what = f"no numbers in {', '.join(lacking)}" if lacking else "no example"
        raise ValueError(f"its {FILE} has {what}; rerun=true trains it again")
