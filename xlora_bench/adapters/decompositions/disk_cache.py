"""Disk cache of decompositions, shared by runs with other ranks, seeds or tasks, and by other processes."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from filelock import FileLock
from torch import Tensor
from xxhash import xxh3_128

from xlora_bench.system.checked_file import read_checked, write_checked
from xlora_bench.system.tensor_hash import bytes_of

Parts = TypeVar("Parts", bound=NamedTuple)
VERSION = 3  # increase it when an algorithm or the checksum changes
log = logging.getLogger(__name__)
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

    Outside `disk_cache` it is always computed. A damaged file is computed again; a folder that cannot be written is no
    error.
    """
    folder = _folder.get()
    path = None if folder is None else folder / f"{name}-{VERSION}-{address(weight)}.safetensors"
    tensors: dict[str, Any] = (
        compute()._asdict() if path is None else entry(path, kind) or computed_once(path, kind, compute)
    )
    return kind(*[tensors[field].to(weight.device) for field in kind._fields])


def computed_once(path: Path, kind: type[Parts], compute: Callable[[], Parts]) -> dict[str, Tensor]:
    """Compute a decomposition and write it to `path`, unless another process has done so meanwhile."""
    with only_one_at_a_time(path):
        tensors = entry(path, kind)
        if tensors is None:
            write_checked(path, tensors := compute()._asdict())
        return tensors


def address(weight: Tensor) -> str:
    """Return a 128-bit XXH3 hash of a weight's dtype, shape and bytes. It is not a cryptographic hash."""
    digest = xxh3_128(f"{weight.dtype} {tuple(weight.shape)}".encode())
    digest.update(bytes_of(weight))
    return digest.hexdigest()


def entry(path: Path, kind: type[NamedTuple]) -> dict[str, Tensor] | None:
    """Return the fields of `kind` from the file `path`, or None if it is missing, damaged or of another kind."""
    tensors = read_checked(path)
    return tensors if tensors is not None and tensors.keys() == set(kind._fields) else None


@contextmanager
def only_one_at_a_time(path: Path) -> Iterator[None]:
    """Lock the computation of `path` against other processes. The lock file is in the folder `<folder>.locks`.

    Where no lock can be had, several processes may compute the same, with a warning.
    """
    locks = path.parent.with_name(f"{path.parent.name}.locks")
    lock = FileLock(locks / path.name)
    try:
        locks.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        log.warning("the cache folder %s cannot be locked (%s)", path.parent, error)
    try:
        yield
    finally:
        lock.release()
