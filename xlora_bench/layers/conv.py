"""Adapted `nn.Conv1d`, `nn.Conv2d` and `nn.Conv3d`."""

from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn import functional as F

from xlora_bench.layers.base import AdaptedLayer, adapts

if TYPE_CHECKING:
    from xlora_bench.adapters.base import Delta

CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


@adapts(nn.Conv1d, nn.Conv2d, nn.Conv3d)
class AdaptedConv(AdaptedLayer):
    """`y = W * x + b + sum_i s_i up_i * (down_i * dropout(x))`: r filters, then a 1x1 convolution that mixes them.

    The matrix view is the weight `(out, in / groups, k...)` with all but its first axis flattened. `down` makes r filters
    with the layer's own kernel size, stride, padding and dilation. With groups the same r filters see each group of input
    channels, and each group of output channels has its rows of `up`, which is what the matrix view says.
    """

    base_layer: nn.Conv1d | nn.Conv2d | nn.Conv3d

    def weight_matrix(self) -> Tensor:
        """Return the weight as `(out, in / groups * prod(k))`."""
        return self.dense_weight().flatten(1)

    def as_weight(self, matrix: Tensor) -> Tensor:
        """Return `matrix` as `(out, in / groups, k...)`."""
        return matrix.reshape(self.weight.shape)

    def apply_delta(self, delta: "Delta", x: Tensor) -> Tensor:
        """Return the update `(n, out, size'...)` for `x (n, in, size...)`, or both without n."""
        up, down = delta.factors()
        conv, groups = self.base_layer, self.base_layer.groups
        convolve, spatial = CONVOLUTIONS[len(conv.kernel_size)], [1] * len(conv.kernel_size)
        batched = x if x.dim() == self.weight.dim() else x.unsqueeze(0)
        dropped = F.dropout(batched.to(down.dtype), delta.dropout, training=self.training)
        padded, padding = self.padded(dropped)
        filters = down.reshape(-1, *self.weight.shape[1:])
        each = padded.reshape(-1, filters.shape[1], *padded.shape[2:])  # groups of channels become rows of the batch
        hidden = convolve(each, filters, stride=conv.stride, padding=padding, dilation=conv.dilation)
        hidden = hidden.reshape(len(batched), -1, *hidden.shape[2:]) * delta.scaling
        update = convolve(hidden, up.reshape(*up.shape, *spatial), groups=groups)
        return update if x.dim() == self.weight.dim() else update.squeeze(0)

    def padded(self, x: Tensor) -> tuple[Tensor, str | tuple[int, ...] | int]:
        """Return `x` padded in the layer's mode, and the padding that is left for the convolution to do."""
        conv = self.base_layer
        if conv.padding_mode == "zeros":
            return x, conv.padding
        return F.pad(x, conv._reversed_padding_repeated_twice, mode=conv.padding_mode), 0
