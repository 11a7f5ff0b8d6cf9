"""Local data files (parquet, jsonl, csv, tsv) as data frames."""

import csv
import json
from pathlib import Path

import pandas as pd

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
    return pd.read_parquet(path)


def _read_jsonl(path: Path) -> pd.DataFrame:
    with path.open(encoding="utf-8-sig") as lines:
        return pd.DataFrame([json.loads(line) for line in lines if line.strip()])


def _read_csv(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")


def _read_tsv(path: Path) -> pd.DataFrame:
    # Quotes are ordinary characters in the GLUE files: a field may have an opening quote without a closing one.
    return pd.read_csv(path, sep="\t", quoting=csv.QUOTE_NONE, dtype=str, keep_default_na=False, encoding="utf-8-sig")


_READERS = {".parquet": _read_parquet, ".jsonl": _read_jsonl, ".csv": _read_csv, ".tsv": _read_tsv}
