"""Independent random streams of one run, so that two variants of one seed share what they should share."""

import hashlib

import torch


def derive(seed: int, *purpose: str | int) -> int:
    """Return the 63-bit seed of the stream `purpose` (for instance `"order", epoch`) of a run's `seed`."""
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """Return a CPU generator at the start of the stream `purpose`."""
    return torch.Generator().manual_seed(derive(seed, *purpose))
