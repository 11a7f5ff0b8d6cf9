"""Adapted `nn.Linear`."""

from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn import functional as F

from xlora_bench.layers.base import AdaptedLayer, adapts

if TYPE_CHECKING:
    from xlora_bench.adapters.base import Delta


@adapts(nn.Linear)
class AdaptedLinear(AdaptedLayer):
    """`y = W x + b + sum_i s_i up_i (down_i dropout(x))` with `down (r, in)` and `up (out, r)`."""

    def weight_matrix(self) -> Tensor:
        """Return the weight `(out, in)`."""
        return self.dense_weight()

    def as_weight(self, matrix: Tensor) -> Tensor:
        """Return `matrix` itself."""
        return matrix

    def apply_delta(self, delta: "Delta", x: Tensor) -> Tensor:
        """Return `s up (down x)`, `(..., in) -> (..., out)`; the dense update is never formed."""
        up, down = delta.factors()
        x = F.dropout(x.to(down.dtype), delta.dropout, training=self.training)
        return F.linear(F.linear(x, down) * delta.scaling, up)
