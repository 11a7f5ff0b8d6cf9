"""Dropout whose mask costs a fifth on a CPU: torch draws a double for every element, here 16 random bits decide."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STEPS = 1 << 16
"""Probabilities are multiples of 1 / STEPS: p is met to 8e-6, and the kept entries are scaled by what it became."""


def drop(x: Tensor, p: float, *, training: bool = True) -> Tensor:
    """Return `x * mask / (1 - p')` with independent `P(mask = 0) = p'`, `p'` the multiple of 2^-16 nearest to `p`.

    The mask comes from torch's global CPU generator, in fp32. On other devices and in compiled graphs this is
    torch's own dropout.
    """
    if not training or p == 0.0:
        return x
    return x * mask_of(x, p) if draws_bits(x, p) else F.dropout(x, p)


def draws_bits(x: Tensor, p: float) -> bool:
    """Tell whether `drop(x, p)` draws its own mask."""
    return x.device.type == "cpu" and 0 < round(p * STEPS) < STEPS and not torch.compiler.is_compiling()


def mask_of(x: Tensor, p: float) -> Tensor:
    """Return the factors of `drop(x, p)`, 0 or `1 / (1 - p')`."""
    dropped = round(p * STEPS)
    words = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    bits = words.view(torch.int16)[: x.numel()].view(x.shape)
    keep = bits.float().ge_(dropped - STEPS // 2)  # in floats: torch compares and multiplies booleans one by one
    return keep.mul_(STEPS / (STEPS - dropped)).to(x.dtype)


class Dropout(nn.Dropout):
    """`nn.Dropout` with the mask of `drop`."""

    def forward(self, input: Tensor) -> Tensor:
        """Return `input` with entries dropped in training."""
        return drop(input, self.p, training=self.training)
