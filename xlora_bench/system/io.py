"""Writes that leave the old file or the new one, and folders that replace each other in one step."""

import ctypes
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from xxhash import xxh3_128

AT_FDCWD, RENAME_EXCHANGE = -100, 2  # of Linux, see renameat2(2)
OLD_SECONDS = 3600
"""Age from which a temporary file is that of a process that was killed."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`. After the block it is written through to the disk and renamed to `path`.

    Raises:
        OSError: with the name of `path`, if it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace the content of `path`; see `replacing`."""
    with replacing(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, have reached the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary files in `folder` that killed processes have left."""
    for path in folder.glob(".*.tmp"):
        try:
            if time.time() - path.stat().st_mtime >= OLD_SECONDS:
                path.unlink()
        except FileNotFoundError:  # its process was not killed
            continue


def publish(folder: Path, target: Path, *, old: Path) -> None:
    """Rename `folder` to `target` after all its files have reached the disk. A folder that is there is replaced.

    On Linux the two are exchanged in one step, so `target` is always there. Elsewhere the old one is renamed to `old`
    first; `end_publish` repairs what a kill between the two renames leaves. At the end `old` is deleted.
    """
    for path in folder.rglob("*"):
        if not path.is_symlink():
            sync(path)
    sync(folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        folder.rename(target)
    elif exchanged(folder, target):
        folder.rename(old)
    else:
        target.rename(old)
        folder.rename(target)
    sync(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def end_publish(target: Path, *, old: Path) -> None:
    """Undo or end what a killed `publish` began."""
    if old.exists() and not target.exists():
        old.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def exchanged(one: Path, other: Path) -> bool:
    """Exchange two folders in one step; return False, with nothing done, where the system cannot."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    return rename is not None and not rename(
        AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), ctypes.c_uint(RENAME_EXCHANGE)
    )


def hashes_of(folder: Path, names: Iterator[Path]) -> dict[str, str]:
    """Return the `file_hash` of files by their path in `folder`."""
    return {path.relative_to(folder).as_posix(): file_hash(path) for path in sorted(names)}


def file_hash(path: Path) -> str:
    """Return the 128-bit XXH3 hash of a file's content. It tells damage, not forgery."""
    digest = xxh3_128()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
