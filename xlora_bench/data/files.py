"""Data files of one's own: parquet, jsonl, csv and tsv as data frames whose text stays text."""

import csv
import json
from pathlib import Path

import pandas as pd

SUFFIXES = ("parquet", "jsonl", "csv", "tsv")


def find(folder: Path, split: str) -> Path:
    """Return the one file `folder/split.{parquet,jsonl,csv,tsv}`.

    Raises:
        ValueError: If there is none, or more than one (which of them is meant is not ours to guess).
    """
    tried = [folder / f"{split}.{suffix}" for suffix in SUFFIXES]
    result = [path for path in tried if path.is_file()]
    if len(result) == 1:
        return result[0]
    if result:
        names = ", ".join(path.name for path in result)
        raise ValueError(f"`paths.data_dir` holds the split {split!r} twice, in {folder}: {names}; keep one")
    names = ", ".join(str(path) for path in tried)
    raise ValueError(f"`paths.data_dir` has no file for the split {split!r}; tried {names}")


def read(path: Path) -> pd.DataFrame:
    """Read one data file; fields of csv and tsv are all text, and "NA" or "null" is a text like any other.

    Raises:
        ValueError: If the file is not what its suffix says.
    """
    try:
        return _READERS[path.suffix](path)
    except (ValueError, OSError) as error:  # every parser here raises a kind of ValueError
        raise ValueError(f"{path} cannot be read as {path.suffix[1:]}: {error}") from error


def _read_parquet(path: Path) -> pd.DataFrame:
    return pd.read_parquet(path)


def _read_jsonl(path: Path) -> pd.DataFrame:
    with path.open(encoding="utf-8-sig") as lines:
        return pd.DataFrame([json.loads(line) for line in lines if line.strip()])


def _read_csv(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")


def _read_tsv(path: Path) -> pd.DataFrame:
    # Quotes are plain characters in the GLUE tables: a field may open one and never close it.
    return pd.read_csv(path, sep="\t", quoting=csv.QUOTE_NONE, dtype=str, keep_default_na=False, encoding="utf-8-sig")


_READERS = {".parquet": _read_parquet, ".jsonl": _read_jsonl, ".csv": _read_csv, ".tsv": _read_tsv}
