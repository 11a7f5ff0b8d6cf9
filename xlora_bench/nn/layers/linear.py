"""Adapted `nn.Linear`."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from xlora_bench.nn.layers.base import AdaptedLayer, adapts
from xlora_bench.nn.ops.dropout import drop
from xlora_bench.nn.ops.low_rank_linear import low_rank_linear, rescaled

if TYPE_CHECKING:
    from xlora_bench.adapters.delta import Delta
    from xlora_bench.nn.layers.adapter_dict import AdapterDict


@adapts(nn.Linear)
class AdaptedLinear(AdaptedLayer):
    """`y = W x + b + sum_i s_i B_i (A_i dropout(x))` with `A (r, in)` and `B (out, r)`."""

    def weight_matrix(self) -> Tensor:
        """Return the weight `(out, in)`."""
        return self.dense_weight()

    def as_weight(self, matrix: Tensor) -> Tensor:
        """Return `matrix` itself."""
        return matrix

    def forward(self, x: Tensor) -> Tensor:
        """Return the adapted output; base and update are one function where the layer is as simple as most are."""
        delta = self.only_delta()
        if delta is None or not self.is_simple(x):
            return super().forward(x)
        B, A = delta.factors()
        weight, bias = self.weight_matrix(), self.bias
        output = low_rank_linear(x, weight, bias, B, A, scaling=delta.scaling)
        return output if delta.additive else rescaled(output, bias, delta.row_scale(weight))

    def only_delta(self) -> "Delta | None":
        """Return the delta that is added with weight 1, if it is the only one and nothing is dropped."""
        if len(self.active) != 1 or self.route is not None or self._buffers["merged_weight"] is not None:
            return None
        [(name, weight)] = self.active.items()
        delta = cast("AdapterDict", self._modules["deltas"])[name]  # a third of the time of `self.deltas`
        return delta if weight == 1.0 and not (self.training and delta.dropout) else None

    def is_simple(self, x: Tensor) -> bool:
        """Whether the base is a frozen, unhooked `x W^T + b` in the dtype of `x`, and nothing casts behind our back.

        The dtype is that of the factors, which are never below fp32.
        """
        base: Any = self._modules["base_layer"]
        return (
            type(base).forward in self.plain_forwards()
            and not (base._forward_hooks or base._forward_pre_hooks)
            and is_plain(base, x)
        )

    def plain_forwards(self) -> tuple[Callable[..., Tensor], ...]:
        """Return the forwards that are `x W^T + b`; a class of one's own may do more."""
        return (nn.Linear.forward,)

    def apply_delta(self, delta: "Delta", x: Tensor) -> Tensor:
        """Return `s B (A x)`, `(..., in) -> (..., out)`; the dense update is never formed."""
        B, A = delta.factors()
        x = drop(x.to(A.dtype), delta.dropout, training=self.training)
        return F.linear(F.linear(x, A) * delta.scaling, B)


def is_plain(base: nn.Module, x: Tensor) -> bool:
    """Whether the weights of `base` are frozen numbers in the dtype of `x`, and nothing casts behind our back."""
    weights = base._parameters
    return (
        type(weight := weights["weight"]) is nn.Parameter
        and x.dtype == weight.dtype
        and x.dtype in (torch.float32, torch.float64)
        and not any(each.requires_grad for each in weights.values() if each is not None)
        and not torch.is_autocast_enabled(x.device.type)
    )
