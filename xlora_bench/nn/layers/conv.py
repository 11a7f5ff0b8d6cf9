"""Adapted `nn.Conv1d`, `nn.Conv2d` and `nn.Conv3d`."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from xlora_bench.nn.layers.base import AdaptedLayer, adapts

if TYPE_CHECKING:
    from xlora_bench.adapters.delta import Delta

CONVOLUTIONS: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


@adapts(nn.Conv1d, nn.Conv2d, nn.Conv3d)
class AdaptedConv(AdaptedLayer):
    """`y = W * x + b + sum_i s_i B_i * (A_i * dropout(x))`: a convolution with r filters, then a 1x1 convolution.

    The matrix view is the weight `(out, in / groups, k...)` with all but its first axis flattened. `A` holds r filters
    with the layer's kernel size, stride, padding and dilation. With groups, the same r filters are applied to each
    group of input channels, and each group of output channels uses its own rows of `B`, as in the matrix view.
    """

    base_layer: nn.Conv1d | nn.Conv2d | nn.Conv3d

    def weight_matrix(self) -> Tensor:
        """Return the weight as `(out, in / groups * prod(k))`."""
        return self.dense_weight().flatten(1)

    def as_weight(self, matrix: Tensor) -> Tensor:
        """Return `matrix` as `(out, in / groups, k...)`."""
        return matrix.reshape(self.weight.shape)

    def apply_delta(self, delta: "Delta", x: Tensor) -> Tensor:
        """Return the update `(n, out, size'...)` for `x (n, in, size...)`; n may be missing in both."""
        B, A = delta.factors()
        conv, convolve = self.base_layer, CONVOLUTIONS[len(self.base_layer.kernel_size)]
        x, padding = self.padded(F.dropout(x.to(A.dtype), delta.dropout, training=self.training))
        filters = torch.cat([A.reshape(-1, *self.weight.shape[1:])] * conv.groups)
        hidden = convolve(x, filters, None, conv.stride, padding, conv.dilation, conv.groups) * delta.scaling
        pointwise = B.reshape(*B.shape, *[1] * len(conv.kernel_size))
        return convolve(hidden, pointwise, groups=conv.groups)

    def per_row(self, values: Tensor) -> Tensor:
        """Return one value per channel `(out,)` as `(out, 1...)`."""
        return values.reshape(-1, *[1] * len(self.base_layer.kernel_size))

    def padded(self, x: Tensor) -> tuple[Tensor, str | tuple[int, ...] | int]:
        """Return `x` padded in the layer's padding mode, and the padding argument for the convolution."""
        conv = self.base_layer
        if conv.padding_mode == "zeros":
            return x, conv.padding
        return F.pad(x, conv._reversed_padding_repeated_twice, mode=conv.padding_mode), 0
