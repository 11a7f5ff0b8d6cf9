"""Local data files (parquet, jsonl, csv, tsv) as data frames."""

import csv
import json
import warnings
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from pyarrow.parquet import ParquetFile

SUFFIXES = ("parquet", "jsonl", "csv", "tsv")


def find(folder: Path, split: str) -> Path:
    """Return the one file `folder/split.{parquet,jsonl,csv,tsv}`.

    Raises:
        ValueError: if there is no such file, or more than one.
    """
    tried = [folder / f"{split}.{suffix}" for suffix in SUFFIXES]
    existing = [path for path in tried if path.is_file()]
    if len(existing) == 1:
        return existing[0]
    if existing:
        names = ", ".join(path.name for path in existing)
        raise ValueError(f"`paths.data_dir` holds the split {split!r} twice, in {folder}: {names}; keep one")
    names = ", ".join(str(path) for path in tried)
    raise ValueError(f"`paths.data_dir` has no file for the split {split!r}; tried {names}")


def read(path: Path) -> pd.DataFrame:
    """Read one data file. All fields of csv and tsv are text; "NA" and "null" are not treated as missing.

    Raises:
        ValueError: if the file cannot be read in the format of its suffix.
    """
    try:
        return _READERS[path.suffix](path)
    except (ValueError, OSError) as error:  # all these parsers raise subclasses of ValueError
        raise ValueError(f"{path} cannot be read as {path.suffix[1:]}: {error}") from error


def _read_parquet(path: Path) -> pd.DataFrame:
    if twice := _twice(ParquetFile(path).schema_arrow.names):
        raise ValueError(f"it has the column {twice!r} twice")
    return pd.read_parquet(path)


def _read_jsonl(path: Path) -> pd.DataFrame:
    rows = []
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                rows.append(json.loads(line, object_pairs_hook=partial(_row, number=number)))
    return pd.DataFrame(rows)


def _row(pairs: list[tuple[str, Any]], *, number: int) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if twice := _twice(names):
        raise ValueError(f"line {number} has the key {twice!r} twice")
    return dict(pairs)


def _read_csv(path: Path) -> pd.DataFrame:
    return _read_separated(path, sep=",", quoting=csv.QUOTE_MINIMAL)


def _read_tsv(path: Path) -> pd.DataFrame:
    # Quotes are ordinary characters in the GLUE files: a field may have an opening quote without a closing one.
    return _read_separated(path, sep="\t", quoting=csv.QUOTE_NONE)


def _read_separated(path: Path, *, sep: str, quoting: Literal[0, 3]) -> pd.DataFrame:
    """Read a table whose first line has the names; pandas would shift or rename columns that do not fit them."""
    with path.open(encoding="utf-8-sig", newline="") as lines:
        names = next(csv.reader(lines, delimiter=sep, quoting=quoting), [])
    if twice := _twice(names):
        raise ValueError(f"the first line has the column {twice!r} twice")
    options: dict[str, Any] = {"dtype": str, "keep_default_na": False, "encoding": "utf-8-sig", "index_col": False}
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            return pd.read_csv(path, sep=sep, quoting=quoting, **options)
        except pd.errors.ParserWarning as error:
            raise ValueError(f"line 2 has more fields than the {len(names)} names of the first line") from error


def _twice(names: list[str]) -> str | None:
    return next((name for position, name in enumerate(names) if name in names[:position]), None)


_READERS = {".parquet": _read_parquet, ".jsonl": _read_jsonl, ".csv": _read_csv, ".tsv": _read_tsv}
