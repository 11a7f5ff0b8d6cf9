"""A decomposition that was computed once is read back: by other ranks, seeds, tasks and processes."""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

Parts = TypeVar("Parts", bound=NamedTuple)
VERSION = 1  # raise it when an algorithm changes
_folder: ContextVar[Path | None] = ContextVar("folder", default=None)


@contextmanager
def remembered_in(folder: Path) -> Iterator[None]:
    """Keep decompositions in `folder` within a `with` block, named by their kind and the weight's content."""
    token = _folder.set(folder)
    try:
        yield
    finally:
        _folder.reset(token)


def remembered(decompose: Callable[[Tensor], Parts]) -> Callable[[Tensor], Parts]:
    """Let `decompose` look into the folder first; outside `remembered_in` it just computes.

    Files hold whole decompositions, of which every rank takes its part, and are memory-mapped when read. They are
    written by one rename, so that a kill leaves no half; one that cannot be read is computed again.
    """
    kind: Any = decompose.__annotations__["return"]

    @wraps(decompose)
    def lookup(weight: Tensor) -> Parts:
        folder = _folder.get()
        if folder is None:
            return decompose(weight)
        path = folder / f"{decompose.__name__}-{VERSION}-{content_hash(weight)}.safetensors"
        parts = read(path)
        if parts is None or parts.keys() != set(kind._fields):
            parts = decompose(weight)._asdict()
            write(path, parts)
        return kind(**{name: part.to(weight.device) for name, part in parts.items()})

    return lookup


def content_hash(weight: Tensor) -> str:
    """Return a hash of a weight's type, shape and bytes."""
    digest = hashlib.sha256(f"{weight.dtype} {tuple(weight.shape)}".encode())
    digest.update(weight.detach().contiguous().view(torch.uint8).numpy(force=True).data)
    return digest.hexdigest()[:32]


def read(path: Path) -> dict[str, Tensor] | None:
    """Return the tensors in `path`, or None where there is no whole file."""
    from safetensors import SafetensorError  # noqa: PLC0415 - not needed without the cache
    from safetensors.torch import load_file  # noqa: PLC0415

    try:
        return load_file(path)
    except (OSError, SafetensorError):
        return None


def write(path: Path, parts: dict[str, Tensor]) -> None:
    """Write `parts` to `path` by one rename."""
    from safetensors.torch import save_file  # noqa: PLC0415

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    save_file({name: part.contiguous() for name, part in parts.items()}, temporary)
    temporary.replace(path)
