"""Checks of a data frame against its task: columns present, texts valid, labels known."""

from collections.abc import Callable

import numpy as np
import pandas as pd


def checked_text(frame: pd.DataFrame, columns: tuple[str, ...], *, location: str) -> tuple[list[str], ...]:
    """Return the text columns as lists.

    Raises:
        ValueError: if the table is empty, a column or a text is missing, or a row has no text at all. One
            empty side of a pair is allowed: large public data sets have a few.
    """
    _require_columns(frame, columns, location=location)
    if frame.empty:
        raise ValueError(f"no rows in {location}: at least one is needed")
    texts = tuple(frame[column].tolist() for column in columns)
    for column, values in zip(columns, texts, strict=True):
        for row, value in enumerate(values):
            if not isinstance(value, str):
                raise ValueError(f"column {column!r}, row {row} of {location} is {value!r}: must be a text")
    for row, parts in enumerate(zip(*texts, strict=True)):
        if not any(part.strip() for part in parts):
            raise ValueError(f"row {row} of {location} is empty in {columns}: drop it or fill it")
    return texts


def checked_labels(
    frame: pd.DataFrame, names: tuple[str, ...] | None, *, location: str, may_be_absent: bool = False
) -> np.ndarray:
    """Return class ids (n,) int64 from ids or class names; with `names=None`, scores (n,) float32.

    With `may_be_absent`, rows whose labels are all hidden (no column, null, or -1 as in GLUE's test splits) get `-1`,
    or NaN as scores.

    Raises:
        ValueError: if a label is missing, is not a known class, or is not a finite number.
    """
    if may_be_absent and ("label" not in frame or frame["label"].map(_is_hidden).all()):
        return np.full(len(frame), np.nan, np.float32) if names is None else np.full(len(frame), -1)
    _require_columns(frame, ("label",), location=location)
    values = frame["label"]
    if names is None:
        return np.array(_translate(values, _score, "a finite number", location=location), dtype=np.float32)
    ids = {spelling: index for index, name in enumerate(names) for spelling in (str(index), name)}
    rule = "one of " + ", ".join(f"{index} ({name})" for index, name in enumerate(names))
    read = _translate(values, lambda value: ids.get(_spelled(value)), rule, location=location)
    return np.array(read, dtype=np.int64)


def _require_columns(frame: pd.DataFrame, columns: tuple[str, ...], *, location: str) -> None:
    for column in columns:
        if column not in frame.columns:
            columns_found = ", ".join(map(str, frame.columns))
            raise ValueError(f"column {column!r} is missing in {location}; columns found: {columns_found}")


def _translate(values: pd.Series, read: Callable[[object], float | None], rule: str, *, location: str) -> list[float]:
    """Convert each label by `read`, which returns None for an unknown label."""
    labels = []
    for row, value in enumerate(values.tolist()):
        label = read(value)
        if label is None:
            raise ValueError(f"unknown label {value!r} in row {row} of {location}: must be {rule}")
        labels.append(label)
    return labels


def are_hidden(labels: np.ndarray) -> bool:
    """Return whether `checked_labels` gave `labels` to rows without any."""
    return bool((np.isnan(labels) if labels.dtype.kind == "f" else labels == -1).all())


def _is_hidden(value: object) -> bool:
    return bool(pd.isna(value)) or _spelled(value) in ("", "-1")  # type: ignore[call-overload]


def _spelled(value: object) -> str:
    """Return "1" for 1, 1.0 and "1": pandas turns integers into floats if a column has missing values."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def _score(value: object) -> float | None:
    try:
        score = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return score if abs(score) <= np.finfo(np.float32).max else None
