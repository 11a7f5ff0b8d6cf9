"""Content hashes of tensors."""

import hashlib

import torch
from torch import Tensor


def bytes_of(weight: Tensor) -> memoryview:
    """Return the bytes of a tensor in C order."""
    return weight.detach().contiguous().reshape(-1).view(torch.uint8).numpy(force=True).data


def content_hash(weight: Tensor) -> str:
    """Return 32 hex digits of SHA-256 over the dtype, shape and bytes of a weight."""
    digest = hashlib.sha256(f"{weight.dtype} {tuple(weight.shape)}".encode())
    digest.update(bytes_of(weight))
    return digest.hexdigest()[:32]
