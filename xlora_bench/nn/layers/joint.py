"""Several linear layers with the same input as one autograd function, with one buffer for the input's gradient."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from xlora_bench.nn.layers.linear import AdaptedLinear, is_hooked, is_plain
from xlora_bench.nn.ops.low_rank_linear import dense_is_cheaper, low_rank_linear, rows_of


class Part(NamedTuple):
    """One linear layer: weight `W (out, in)`, bias `b (out,)`, optional update by `B (out, k)` and `A (k, in)`."""

    weight: Tensor
    bias: Tensor | None
    B: Tensor | None = None
    A: Tensor | None = None
    scaling: float = 1.0

    def alone(self, x: Tensor) -> Tensor:
        """Return `x (W + s B A)^T + b`, `(..., out)`, for `x (..., in)`."""
        if self.B is None or self.A is None:
            return F.linear(x, self.weight, self.bias)
        return low_rank_linear(x, self.weight, self.bias, self.B, self.A, scaling=self.scaling)


class JointLinear(torch.autograd.Function):
    """`Y_i = X W_i^T + b_i + s_i (X A_i^T) B_i^T` for `X (n, in)` and several layers i, some of them without update.

    With A the stacked A_i, `H = X A^T` and the gradients G_i of Y_i: `I = [s_i G_i B_i]`, `dX = sum_i G_i W_i + I A`,
    `dA = I^T X`, `dB_i = s_i G_i^T H_i`. W_i and b_i are frozen. Operations that read the same matrix follow each
    other, so that it is still in the CPU cache.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, parts: Sequence[Part], *factors: Tensor) -> tuple[Tensor, ...]:
        """Return Y_1, Y_2, ..., each `(n, out_i)`. `factors` are B_1, A_1, B_2, ... of the parts with an update."""
        Bs, As = factors[::2], factors[1::2]
        hidden = x @ (torch.cat(As) if len(As) > 1 else As[0]).T
        outputs, number, end = [], 0, 0
        for part in parts:
            output = x @ part.weight.T if part.bias is None else torch.addmm(part.bias, x, part.weight.T)
            if part.B is not None:
                start, end = end, end + len(As[number])
                output.addmm_(hidden[:, start:end], Bs[number].T, alpha=part.scaling)
                number += 1
            outputs.append(output)
        trained = ctx.needs_input_grad[2:]
        ctx.parts = [(part.weight, part.scaling, part.B is not None) for part in parts]
        ctx.save_for_backward(x if any(trained[1::2]) else None, hidden if any(trained[::2]) else None, *factors)
        return tuple(outputs)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of X and of the B_i and A_i that are needed."""
        x, hidden, *factors = ctx.saved_tensors
        Bs, As = factors[::2], factors[1::2]
        needs_x, _, *trained = ctx.needs_input_grad
        d_factors: list[Tensor | None] = [None] * len(factors)
        inner = gradients[0].new_empty(len(gradients[0]), sum(map(len, As)))
        d_x, number, end = None, 0, 0
        for (weight, scaling, updated), gradient in zip(ctx.parts, gradients, strict=True):
            if updated:
                start, end = end, end + len(As[number])
                inner[:, start:end].addmm_(gradient, Bs[number], beta=0, alpha=scaling)
                if trained[2 * number]:
                    # computed as (k, out): a third of the time of (out, k); then made contiguous for the optimizer
                    d_B = gradient.new_empty(end - start, gradient.shape[1])
                    d_B.addmm_(hidden[:, start:end].T, gradient, beta=0, alpha=scaling)
                    d_factors[2 * number] = d_B.T.contiguous()
                number += 1
            if needs_x:
                d_x = gradient @ weight if d_x is None else d_x.addmm_(gradient, weight)
        if d_x is not None:
            d_x.addmm_(inner, torch.cat(As))
        if x is not None:
            split = (inner.T @ x).split([len(A) for A in As])
            d_factors[1::2] = [each if trains else None for each, trains in zip(split, trained[1::2], strict=True)]
        return d_x, None, *d_factors


def joint_linear(x: Tensor, layers: Sequence[nn.Module]) -> tuple[Tensor, ...]:
    """Return the output of each of `layers` for `x (..., in)`, by `JointLinear` if all of them allow it.

    They do if each is a frozen linear layer without hooks and with at most one update, at least one has an update, and
    no update is cheaper in dense form.
    """
    adapted = any(isinstance(layer, AdaptedLinear) for layer in layers)
    if not adapted or not all(is_joinable(layer, x) for layer in layers):
        return tuple(layer(x) for layer in layers)
    parts = [part_of(layer) for layer in layers]
    rows = rows_of(x)
    updates = [(part.B, part.A) for part in parts if part.B is not None and part.A is not None]
    if any(dense_is_cheaper(len(rows), *update) for update in updates):
        return tuple(part.alone(x) for part in parts)
    outputs = JointLinear.apply(rows, parts, *(factor for update in updates for factor in update))
    return tuple(output.view(*x.shape[:-1], -1) for output in outputs)


def is_joinable(layer: nn.Module, x: Tensor) -> bool:
    """Return whether `layer` computes for `x` exactly what a `Part` describes."""
    if is_hooked(layer):
        return False
    if type(layer) is AdaptedLinear:
        delta = layer.only_delta()
        return delta is not None and delta.additive and layer.is_simple(x)
    return type(layer) is nn.Linear and is_plain(layer, x)


def part_of(layer: Any) -> Part:
    """Return the `Part` of a layer that `is_joinable`. Computes the factors of its update, once per forward."""
    if type(layer) is nn.Linear:
        return Part(layer.weight, layer.bias)
    base, delta = layer.base_layer, layer.only_delta()
    B, A = delta.factors()
    return Part(base.weight, base.bias, B, A, delta.scaling)
