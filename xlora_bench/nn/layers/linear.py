"""Adapted `nn.Linear`."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from xlora_bench.adapters.delta import Delta, autocast_enabled
from xlora_bench.nn.layers.base import AdaptedLayer, adapts
from xlora_bench.nn.ops.dropout import drop
from xlora_bench.nn.ops.low_rank_linear import low_rank_linear, rescaled

if TYPE_CHECKING:
    from xlora_bench.nn.layers.adapter_dict import AdapterDict


@adapts(nn.Linear)
class AdaptedLinear(AdaptedLayer):
    """`y = W x + b + sum_i s_i B_i (A_i dropout(x))` with `W (out, in)`, `A_i (r, in)` and `B_i (out, r)`."""

    def weight_matrix(self) -> Tensor:
        """Return the weight `(out, in)`."""
        return self.dense_weight()

    def as_weight(self, matrix: Tensor) -> Tensor:
        """Return `matrix` itself."""
        return matrix

    def forward(self, x: Tensor) -> Tensor:
        """Return the adapted output. In the simple case, base and update are one autograd function."""
        delta = self.only_delta()
        if delta is None or not self.is_simple(x):
            return super().forward(x)
        B, A = delta.factors()
        weight, bias = self.weight_matrix(), self.bias
        output = low_rank_linear(x, weight, bias, B, A, scaling=delta.scaling)
        return output if delta.additive else rescaled(output, bias, delta.row_scale(weight))

    def only_delta(self) -> "Delta | None":
        """Return the only active delta, if its weight is 1 without dropout, route and merged weight; else None."""
        if len(self.active) != 1 or self.route is not None or self._buffers["merged_weight"] is not None:
            return None
        [(name, weight)] = self.active.items()
        delta = cast("AdapterDict", self._modules["deltas"])[name]  # takes a third of the time of `self.deltas`
        return delta if weight == 1.0 and not (self.training and delta.dropout) else None

    def is_simple(self, x: Tensor) -> bool:
        """Return whether the base is a frozen `x W^T + b` without hooks, in the dtype of `x`, without autocast.

        The dtype, fp32 or fp64, is then that of the factors too.
        """
        base: Any = self._modules["base_layer"]
        return type(base).forward in self.plain_forwards() and not is_hooked(base) and is_plain(base, x)

    def plain_forwards(self) -> tuple[Callable[..., Tensor], ...]:
        """Return the forwards known to compute `x W^T + b` and nothing else."""
        return (nn.Linear.forward,)

    def apply_delta(self, delta: "Delta", x: Tensor) -> Tensor:
        """Return `s B (A x)`, `(..., in) -> (..., out)`; the dense update is never formed."""
        B, A = delta.factors()
        x = drop(x.to(A.dtype), delta.dropout, training=self.training)
        return F.linear(F.linear(x, A) * delta.scaling, B)


def is_hooked(module: Any) -> bool:
    """Return whether a call of `module` does more than its class says: it has hooks, or a forward of its own."""
    hooks = module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    return bool(hooks) or "forward" in module.__dict__


def is_plain(base: nn.Module, x: Tensor) -> bool:
    """Return whether `base` is frozen, not quantised, in the dtype of `x` (fp32 or fp64), without autocast."""
    weights = base._parameters
    return (
        type(weight := weights["weight"]) is nn.Parameter
        and x.dtype == weight.dtype
        and x.dtype in (torch.float32, torch.float64)
        and not any(each.requires_grad for each in weights.values() if each is not None)
        and not autocast_enabled(x.device)
    )
