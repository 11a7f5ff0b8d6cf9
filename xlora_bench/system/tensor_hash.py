"""Content hashes of tensors."""

import hashlib

import torch
from torch import Tensor


def bytes_of(weight: Tensor) -> memoryview:
    """Return the bytes of a tensor in C order."""
    return weight.detach().contiguous().view(torch.uint8).numpy(force=True).data


def content_hash(weight: Tensor) -> str:
    """Return a cryptographic hash of a weight's type, shape and bytes, for files that outlive this machine."""
    digest = hashlib.sha256(f"{weight.dtype} {tuple(weight.shape)}".encode())
    digest.update(bytes_of(weight))
    return digest.hexdigest()[:32]
