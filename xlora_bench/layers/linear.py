"""Adapted `nn.Linear`."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from xlora_bench.dropout import drop
from xlora_bench.layers.base import AdaptedLayer, adapts
from xlora_bench.layers.fused import low_rank_linear, rescaled

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

    def forward(self, x: Tensor) -> Tensor:
        """Return the adapted output; base and update are one function where the layer is as simple as most are."""
        delta = self.only_delta() if self.one_dtype(x) else None
        if delta is None:
            return super().forward(x)
        up, down = delta.factors()
        weight = self.weight_matrix()
        output = low_rank_linear(x, weight, self.bias, up, down, scaling=delta.scaling)
        return output if delta.additive else rescaled(output, self.bias, delta.row_scale(weight))

    def one_dtype(self, x: Tensor) -> bool:
        """Whether input, weight and factors (never below fp32) have one dtype, and nothing casts behind our back."""
        wide = torch.promote_types(self.weight.dtype, torch.float32)
        return x.dtype == self.weight.dtype == wide and not torch.is_autocast_enabled(x.device.type)

    def only_delta(self) -> "Delta | None":
        """Return the delta of a frozen, unhooked layer, if it is the only one and nothing is dropped."""
        base = self.base_layer
        frozen = not any(parameter.requires_grad for parameter in base.parameters())
        unhooked = type(base).forward in self.plain_forwards() and not (base._forward_hooks or base._forward_pre_hooks)
        if (
            not (frozen and unhooked and type(self.weight) is nn.Parameter)
            or self.merged_weight is not None
            or self.route is not None
        ):
            return None
        deltas = [self.deltas[name] for name, weight in self.active.items() if weight == 1.0]
        alone = len(deltas) == len(self.active) == 1
        return deltas[0] if alone and not (self.training and deltas[0].dropout) else None

    def plain_forwards(self) -> tuple[Callable[..., Tensor], ...]:
        """Return the forwards that are `x W^T + b`; a class of one's own may do more."""
        return (nn.Linear.forward,)

    def apply_delta(self, delta: "Delta", x: Tensor) -> Tensor:
        """Return `s up (down x)`, `(..., in) -> (..., out)`; the dense update is never formed."""
        up, down = delta.factors()
        x = drop(x.to(down.dtype), delta.dropout, training=self.training)
        return F.linear(F.linear(x, down) * delta.scaling, up)
