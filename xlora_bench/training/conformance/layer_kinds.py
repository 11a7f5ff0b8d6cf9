"""The layer types on which variants are proved."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D


def reshaped(matrix: Tensor, weight: Tensor) -> Tensor:
    """Return an `(out, in)` matrix in the shape of a weight whose first axis is `out`."""
    return matrix.reshape(weight.shape)


def transposed(matrix: Tensor, weight: Tensor) -> Tensor:
    """Return an `(out, in)` matrix as the weight of a layer that stores its transpose."""
    return matrix.T


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A type of target layer: how to make it, one row of its input, the layout of its weight, the ids of its table."""

    make: Callable[[], nn.Module]
    row: tuple[int, ...]
    as_weight: Callable[[Tensor, Tensor], Tensor] = reshaped
    ids: int = 0

    def fed(self, hidden: Tensor) -> Tensor:
        """Return the layer's input for `hidden (n, size of a row)`; for an embedding, ids that cover the table."""
        if self.ids:
            return torch.arange(hidden.numel()).view(hidden.shape) % self.ids
        return hidden.view(-1, *self.row)


# All but the linear_* ones and the embedding have a 24 x 24 matrix view, so that square-only variants fit them.
KINDS = {
    "linear": Kind(make=lambda: nn.Linear(24, 24), row=(24,)),
    "linear_tall": Kind(make=lambda: nn.Linear(24, 40, bias=False), row=(24,)),
    "linear_wide": Kind(make=lambda: nn.Linear(40, 24), row=(40,)),
    "embedding": Kind(make=lambda: nn.Embedding(40, 24), row=(6,), as_weight=transposed, ids=40),
    "conv1d": Kind(make=lambda: nn.Conv1d(8, 24, 3, padding="same", padding_mode="circular"), row=(8, 5)),
    "conv2d": Kind(make=lambda: nn.Conv2d(4, 24, (2, 3), stride=2, dilation=(1, 2), padding=1), row=(4, 4, 5)),
    "conv2d_groups": Kind(make=lambda: nn.Conv2d(12, 24, 2, groups=2, bias=False), row=(12, 3, 2)),
    "conv3d": Kind(make=lambda: nn.Conv3d(3, 24, 2, padding=1, padding_mode="replicate"), row=(3, 2, 1, 2)),
    "gpt2_conv1d": Kind(make=lambda: Conv1D(24, 24), row=(24,), as_weight=transposed),
}
"""Every layer type by name. A layer type of your own is one more entry."""
