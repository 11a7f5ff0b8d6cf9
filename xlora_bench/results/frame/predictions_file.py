"""Predictions of a run (`predictions.parquet`): one row per epoch, split and example."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pyarrow import ArrowException, compute
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

    A report needs a file twice, first with all columns; what was read then is kept for the next call, within 256 MiB.

    Raises:
        ValueError: as `read_predictions`.
    """
    key = (path, path.stat().st_mtime_ns) if path.exists() else None
    content = _KEPT.take(key)
    if content is None:
        content = _read(path, partial(_main_split, columns=columns))
        if columns is None:
            _KEPT.keep(key, content)
    names = columns or _all_columns(content)
    _check(content, names, rows=len(content.get("split", ())))
    return {name: content[name] for name in names if name != "split"}


def _bytes(content: Mapping[str, np.ndarray]) -> int:
    return sum(array.nbytes for array in content.values())


def _read(path: Path, read: Callable[[Path], Any]) -> Any:
    if not path.exists():
        raise ValueError(f"its {FILE} is not there; rerun=true trains it again")
    try:
        return read(path)
    except (OSError, ValueError, ArrowException) as error:
        raise ValueError(f"its {FILE} cannot be read ({error}); rerun=true trains it again") from error


def _main_split(path: Path, columns: Sequence[str] | None) -> dict[str, np.ndarray]:
    """Return the columns of the first split in the file; of the column `split` one entry."""
    with ParquetFile(path, pre_buffer=False) as file:
        table = file.read(columns=columns and list(columns), use_threads=False)
    if "split" not in table.column_names or not len(table):
        return {name: table[name].to_numpy() for name in table.column_names}
    if not table["split"][0].is_valid:
        raise ValueError("its first row has no split")
    main = compute.fill_null(compute.equal(table["split"], table["split"][0]), False)
    table = table if compute.all(main).as_py() else table.filter(main)
    return {name: (table[name][:1] if name == "split" else table[name]).to_numpy() for name in table.column_names}


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
