"""An index of files: what was computed from each of them, so that a file that has not changed is not read again."""

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from xxhash import xxh3_128_hexdigest

from xlora_bench.system.io import write_atomically

log = logging.getLogger(__name__)

PACKAGE = Path(__file__).parents[1]
OWN = "system/file_index.py"
LEAST = 100
"""Contents that must be new before the index is written: a small folder has none."""
PART = "="
"""The key of a reference: `{"=": n}` stands for part `n`."""

Content = TypeVar("Content")


class FileIndex:
    """Contents in the types of JSON by name, with the size, time and inode of the file that each was computed from.

    It can be deleted at any time: a content is computed again if the file has changed, and all of them are if the index
    is damaged or one of the modules `code` (paths in the package) has changed. Equal mappings in the contents are one
    object, so nobody may change them.
    """

    def __init__(self, path: Path, *, code: Sequence[str]) -> None:
        self.path = path
        self.version = xxh3_128_hexdigest(b"".join((PACKAGE / name).read_bytes() for name in (OWN, *code)))
        self._known = _read(path, self.version)
        self._new = 0

    def content(self, name: str, file: Path, compute: Callable[[Path], Content]) -> Content:
        """Return the content of `file` in the index, else `compute(file)`, which is kept.

        Raises:
            FileNotFoundError: if there is no such file.
        """
        status = file.stat()
        state = [status.st_size, status.st_mtime_ns, status.st_ino]
        known, content = self._known.get(name, (None, None))
        if known == state:
            return content
        content = compute(file)
        self._known[name] = (state, content)
        self._new += 1
        return content

    def write(self, exists: Callable[[str], bool]) -> None:
        """Write the index if enough is new, without the names that do not exist any more.

        Nothing happens in a folder that cannot be written.
        """
        if self._new < LEAST:
            return
        self._known = {name: known for name, known in self._known.items() if exists(name)}
        parts: dict[str, int] = {}
        files = {name: [state, _packed(content, parts)] for name, (state, content) in self._known.items()}
        text = f'{{"version": "{self.version}", "parts": [{",".join(parts)}], "files": {json.dumps(files)}}}'
        try:
            self.path.parent.mkdir(exist_ok=True)
            write_atomically(self.path, f"{xxh3_128_hexdigest(text.encode())}\n{text}")
        except OSError as error:
            log.debug("no index of the runs: %s", error)
        self._new = 0


def _read(path: Path, version: str) -> dict[str, tuple[list[int] | None, Any]]:
    """Return state and content of each file in an index; empty if it is damaged or of another version."""
    try:
        digest, _, text = path.read_bytes().partition(b"\n")
        if xxh3_128_hexdigest(text).encode() != digest:
            return {}
        index = json.loads(text)
        if index["version"] != version:
            return {}
        parts: list[dict[str, Any]] = []
        for part in index["parts"]:
            parts.append({key: _unpacked(value, parts) for key, value in part.items()})
        return {name: (state, _unpacked(content, parts)) for name, (state, content) in index["files"].items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return {}


def _packed(content: Any, parts: dict[str, int]) -> Any:
    """Return `content` with a reference for each mapping, which is added to `parts`; lists stay as they are."""
    if not isinstance(content, dict):
        return content
    text = json.dumps({key: _packed(value, parts) for key, value in content.items()})
    return {PART: parts.setdefault(text, len(parts))}


def _unpacked(content: Any, parts: list[dict[str, Any]]) -> Any:
    return parts[content[PART]] if isinstance(content, dict) else content
