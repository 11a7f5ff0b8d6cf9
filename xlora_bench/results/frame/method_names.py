"""Display names of methods, the same in all parts of a report."""

from collections.abc import Hashable, Mapping


def method_name(key: Hashable, labels: Mapping[str, str] | None = None) -> str:
    """Join the values of a row key to a name; `labels` replaces values, None values are left out."""
    parts = key if isinstance(key, tuple) else (key,)
    known = [str(part) for part in parts if part is not None]
    return " · ".join((labels or {}).get(part, part) for part in known) or "-"
