"""Cache files that are verified when they are read: safetensors with a checksum of their tensors."""

import logging
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from xxhash import xxh3_128

from xlora_bench.system.io import remove_leftovers, write_atomically
from xlora_bench.system.tensor_hash import bytes_of

KEY = "xxh3_128"
"""Key of the safetensors metadata that holds the checksum."""
log = logging.getLogger(__name__)
_unwritable: set[Path] = set()


def read_checked(path: Path) -> dict[str, Tensor] | None:
    """Return the tensors in the file `path`; None if it is missing, or damaged, which is logged as a warning."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
            checksum = (file.metadata() or {}).get(KEY)
    except (SafetensorError, OSError) as error:
        _remove(path, str(error))
        return None
    if checksum == checksum_of(tensors):
        return tensors
    _remove(path, "its checksum is another one")
    return None


def _remove(path: Path, damage: str) -> None:
    log.warning("the cache file %s is damaged (%s): it is made again", path, damage)
    with suppress(OSError):
        path.unlink()


def write_checked(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write `tensors` to `path` atomically. What cannot be written is named in a warning: a cache is no result."""
    content = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent)
        write_atomically(path, save(content, metadata={KEY: checksum_of(content)}))
    except OSError as error:
        if path.parent not in _unwritable:  # one warning per folder
            log.warning(
                "the cache file %s cannot be written (%s): such files are computed in each run", path, error.strerror
            )
        _unwritable.add(path.parent)


def checksum_of(tensors: Mapping[str, Tensor]) -> str:
    """Return a 128-bit XXH3 hash over names, dtypes, shapes and bytes. It tells damage, not forgery."""
    digest = xxh3_128()
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)};".encode())
        digest.update(bytes_of(tensors[name]))
    return digest.hexdigest()
