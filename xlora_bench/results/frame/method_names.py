"""Display names of methods and columns, the same in all parts of a report."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

SHOWN_IDS = 3
"""A note lists at most this many run ids."""


def method_name(key: Hashable, labels: Mapping[str, str] | None = None) -> str:
    """Join the values of a row key to a name; `labels` replaces values, None values are left out."""
    parts = key if isinstance(key, tuple) else (key,)
    known = [str(part) for part in parts if part is not None]
    return " · ".join((labels or {}).get(part, part) for part in known) or "-"


def column_label(names: Sequence[str], key: Sequence[Any]) -> str:
    """Return a column key as text: a group choice alone, a config value with its key, such as `lora, rank 8`."""
    parts = []
    for name, value in zip(names, key, strict=True):
        key_name = name.rpartition(".")[2]
        shown = f"{value:g}" if isinstance(value, float) else str(value)
        parts.append(f"no {key_name}" if value is None else f"{key_name} {shown}" if "." in name else shown)
    return ", ".join(parts)


def listed_runs(run_ids: Sequence[str]) -> str:
    """Return run ids as text, of many only the first: the others are in `runs.csv`."""
    if len(run_ids) <= SHOWN_IDS:
        return ", ".join(run_ids)
    return f"{len(run_ids)} runs ({run_ids[0]} and others, see runs.csv)"
