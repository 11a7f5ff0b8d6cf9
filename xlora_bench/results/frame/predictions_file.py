"""Predictions of a run (`predictions.parquet`): one row per epoch, split and example."""

from collections.abc import Callable, Iterable, Mapping, Sequence
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


def read_main_split(path: Path, columns: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """Return the columns of the first split in the file, which is the main one, as arrays: four times as fast.

    Raises:
        ValueError: as `read_predictions`.
    """
    table = _read(path, _table)
    names = columns or _all_columns(table.column_names)
    arrays = {name: table[name].to_numpy() for name in {*names, "split"} & {*table.column_names}}
    _check(arrays, names, rows=len(table))
    main = arrays["split"] == arrays["split"][0]
    return {name: arrays[name] if main.all() else arrays[name][main] for name in names if name != "split"}


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
