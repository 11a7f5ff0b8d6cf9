"""Files written in one step, and content hashes."""

import hashlib
import os
import tempfile
from pathlib import Path

import torch
from torch import Tensor


def write_atomically(path: Path, text: str) -> None:
    """Replace the content of `path` in one step that survives a crash."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name itself must reach the disk
    finally:
        os.close(folder)


def bytes_of(weight: Tensor) -> memoryview:
    """Return the bytes of a tensor in C order."""
    return weight.detach().contiguous().view(torch.uint8).numpy(force=True).data


def content_hash(weight: Tensor) -> str:
    """Return a cryptographic hash of a weight's type, shape and bytes, for files that outlive this machine."""
    digest = hashlib.sha256(f"{weight.dtype} {tuple(weight.shape)}".encode())
    digest.update(bytes_of(weight))
    return digest.hexdigest()[:32]
