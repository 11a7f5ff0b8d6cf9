"""What a process keeps from run to run: bounded shelves, so that a sweep does not read, hash or check twice."""

import gc
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Generic, TypeVar

Value = TypeVar("Value")
Fingerprint = tuple[tuple[str, int, int], ...]


class LRUCache(Generic[Value]):
    """The last `size` values that were asked for, by key; the one not asked for longest goes first."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._values: dict[Hashable, Value] = {}

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """Return the value at `key`; `make` it where there is none, after room was made for it."""
        if key in self._values:
            self._values[key] = self._values.pop(key)
            return self._values[key]
        while len(self._values) >= self.size:
            del self._values[next(iter(self._values))]
        self._values[key] = make()
        return self._values[key]

    def drop(self, key: Hashable) -> None:
        """Forget the value at `key`."""
        self._values.pop(key, None)

    def __len__(self) -> int:
        return len(self._values)


def file_fingerprint(folder: Path) -> Fingerprint:
    """Return names, times and sizes of the files in `folder` (none for what is no folder): a key that edits change."""
    if not folder.is_dir():
        return ()
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return tuple((path.name, path.stat().st_mtime_ns, path.stat().st_size) for path in files)


def collect_garbage() -> None:
    """Free what earlier runs left behind in reference cycles, a trainer with its model and optimizer above all.

    What was there before the first run (modules, half a million objects) is left out of every collection: to look
    through it takes longer than a small run.
    """
    if not gc.get_freeze_count():
        gc.freeze()
    gc.collect()
