"""In-process LRU caches, file fingerprints as their keys, and garbage collection between runs."""

import gc
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Generic, TypeVar

Value = TypeVar("Value")
Fingerprint = tuple[tuple[str, int, int], ...]


class LRUCache(Generic[Value]):
    """LRU cache of at most `size` values; the least recently used one is evicted first."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._values: dict[Hashable, Value] = {}

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """Return the value at `key`; if it is missing, evict down to `size - 1` values, then call `make`."""
        if key in self._values:
            self._values[key] = self._values.pop(key)
            return self._values[key]
        while len(self._values) >= self.size:
            del self._values[next(iter(self._values))]
        self._values[key] = make()
        return self._values[key]

    def drop(self, key: Hashable) -> None:
        """Remove the value at `key`, if any."""
        self._values.pop(key, None)

    def __len__(self) -> int:
        return len(self._values)


def file_fingerprint(folder: Path) -> Fingerprint:
    """Return (name, mtime in ns, size) of each file in `folder`, `()` if it is no folder; edits change it."""
    if not folder.is_dir():
        return ()
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return tuple((path.name, path.stat().st_mtime_ns, path.stat().st_size) for path in files)


def collect_garbage() -> None:
    """Free the reference cycles of earlier runs, mainly a trainer with its model and optimizer.

    Objects that exist before the first call (modules, about half a million objects) are frozen: the collector skips
    them, because to scan them takes longer than a small run.
    """
    if not gc.get_freeze_count():
        gc.freeze()
    gc.collect()
