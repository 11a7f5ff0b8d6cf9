"""Random streams of a run, one per purpose: two variants with the same seed get, for instance, the same batch order."""

import hashlib

import torch


def derive(seed: int, *purpose: str | int) -> int:
    """Return a 63-bit seed, from SHA-256 of the run's `seed` and `purpose` (for instance `"order", epoch`)."""
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """Return a CPU generator seeded by `derive(seed, *purpose)`."""
    return torch.Generator().manual_seed(derive(seed, *purpose))
