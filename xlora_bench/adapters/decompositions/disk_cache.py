"""Disk cache of decompositions, shared by runs with other ranks, seeds or tasks, and by other processes."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import NamedTuple, TypeVar

from filelock import FileLock
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from xxhash import xxh3_128

from xlora_bench.system.tensor_hash import bytes_of

Parts = TypeVar("Parts", bound=NamedTuple)
VERSION = 2  # increase it when an algorithm changes
_folder: ContextVar[Path | None] = ContextVar("folder", default=None)


@contextmanager
def disk_cache(folder: Path) -> Iterator[None]:
    """Cache decompositions in `folder` within a `with` block. File names: kind of decomposition, hash of the weight."""
    token = _folder.set(folder)
    try:
        yield
    finally:
        _folder.reset(token)


def cached(kind: type[Parts], name: str, weight: Tensor, compute: Callable[[], Parts]) -> Parts:
    """Return the decomposition `name` of `weight` on the weight's device, from the disk cache or by `compute`.

    Outside `disk_cache` it is always computed. A file is written under a temporary name and then renamed, so an
    interrupted process leaves no partial file. A file that cannot be read is computed again.
    """
    folder = _folder.get()
    if folder is None:
        parts = compute()._asdict()
    else:
        path = folder / f"{name}-{VERSION}-{address(weight)}.safetensors"
        tensors = entry(path, kind)
        if tensors is None:
            with only_one_at_a_time(path):
                tensors = entry(path, kind)  # another process may have written it meanwhile
                if tensors is None:
                    write(path, tensors := compute()._asdict())
        parts = tensors
    return kind(*(parts[field].to(weight.device) for field in kind._fields))


def address(weight: Tensor) -> str:
    """Return a 128-bit XXH3 hash of a weight's dtype, shape and bytes. It is not a cryptographic hash."""
    digest = xxh3_128(f"{weight.dtype} {tuple(weight.shape)}".encode())
    digest.update(bytes_of(weight))
    return digest.hexdigest()


def entry(path: Path, kind: type[NamedTuple]) -> dict[str, Tensor] | None:
    """Return the fields of `kind` from the file `path`, or None if it is missing, damaged or of another kind."""
    tensors = read(path)
    return tensors if tensors is not None and tensors.keys() == set(kind._fields) else None


@contextmanager
def only_one_at_a_time(path: Path) -> Iterator[None]:
    """Lock the computation of `path` against other processes. The lock file is in the folder `<folder>.locks`."""
    locks = path.parent.with_name(f"{path.parent.name}.locks")
    locks.mkdir(parents=True, exist_ok=True)
    with FileLock(locks / path.name):
        yield


def read(path: Path) -> dict[str, Tensor] | None:
    """Return the tensors in the file `path`, or None if it is missing or damaged."""
    try:
        return load_file(path)
    except (OSError, SafetensorError):
        return None


def write(path: Path, parts: dict[str, Tensor]) -> None:
    """Write `parts` to a temporary file and rename it to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    save_file({name: part.contiguous() for name, part in parts.items()}, temporary)
    temporary.replace(path)
