"""One name for a method, wherever a report writes it."""

from collections.abc import Hashable, Mapping


def method_name(key: Hashable, labels: Mapping[str, str] | None = None) -> str:
    """Return the values of a table's row as text, `labels` replacing some; a key that the method lacks is left out."""
    parts = key if isinstance(key, tuple) else (key,)
    known = [str(part) for part in parts if part is not None]
    return " · ".join((labels or {}).get(part, part) for part in known) or "-"
