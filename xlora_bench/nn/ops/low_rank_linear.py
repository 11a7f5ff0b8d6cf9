"""One linear layer with its low-rank update, as autograd functions: nothing is computed that no gradient needs."""

from typing import Any

import torch
from torch import Tensor

from xlora_bench.nn.ops.numerics import revision


class LowRankLinear(torch.autograd.Function):
    """`Y = X W^T + b + s (X D^T) U^T` for `X (n, in)`, `W (out, in)`, `b (out,)`, `U (out, k)`, `D (k, in)`.

    With the gradient `G (n, out)` of Y and `H = X D^T (n, k)`:
    `dX = G W + s (G U) D`, `dD = s (G U)^T X`, `dU = s G^T H`; W and b are frozen. Both products accumulate into the
    output of the frozen layer's own.
    """

    @staticmethod
    def forward(  # noqa: PLR0917 - autograd functions take no keywords
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, up: Tensor, down: Tensor, scaling: float
    ) -> Tensor:
        """Return Y, `(n, out)`."""
        hidden = x @ down.T
        output = x @ weight.T if bias is None else torch.addmm(bias, x, weight.T)
        ctx.scaling = scaling
        _, _, _, trains_up, trains_down, _ = ctx.needs_input_grad
        ctx.save_for_backward(weight, up, down, hidden if trains_up else None, x if trains_down else None)
        return output.addmm_(hidden, up.T, alpha=scaling)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of X, U and D that are needed."""
        weight, up, down, hidden, x = ctx.saved_tensors
        needs_x, _, _, trains_up, trains_down, _ = ctx.needs_input_grad
        inner = gradient @ up if needs_x or trains_down else None
        d_x = (gradient @ weight).addmm_(inner, down, alpha=ctx.scaling) if needs_x else None
        # as (k, out): a third of the time of (out, k), and contiguous as the optimizer wants it
        d_up = (hidden.T @ gradient).mul_(ctx.scaling).T.contiguous() if trains_up else None
        d_down = (inner.T @ x).mul_(ctx.scaling) if inner is not None and trains_down else None
        return d_x, None, None, d_up, d_down, None


class DenseLinear(torch.autograd.Function):
    """The same Y and gradients through one sum `M = W + s U D`, for n rows that outnumber what k saves.

    `Y = X M^T + b`, `dX = G M`, `dU = s (G^T X) D^T`, `dD = s U^T (G^T X)`.
    """

    @staticmethod
    def forward(  # noqa: PLR0917 - autograd functions take no keywords
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, up: Tensor, down: Tensor, scaling: float
    ) -> Tensor:
        """Return Y, `(n, out)`."""
        merged = torch.addmm(weight, up, down, alpha=scaling)
        ctx.scaling = scaling
        ctx.save_for_backward(x, merged, up, down)
        return x @ merged.T if bias is None else torch.addmm(bias, x, merged.T)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of X, U and D that are needed."""
        x, merged, up, down = ctx.saved_tensors
        needs_x, _, _, trains_up, trains_down, _ = ctx.needs_input_grad
        d_x = gradient @ merged if needs_x else None
        d_merged = (gradient.T @ x).mul_(ctx.scaling) if trains_up or trains_down else None
        d_up = d_merged @ down.T if trains_up else None
        d_down = up.T @ d_merged if trains_down else None
        return d_x, None, None, d_up, d_down, None


class RescaledRows(torch.autograd.Function):
    """`Z = g (Y - b) + b` for `Y (..., out)` and `g, b (out,)`, b frozen: Y itself, to the bit, where g is 1.

    With the gradient `G (..., out)` of Z: `dY = g G`, `dg = sum (Y - b) G` over all but the last dimension.
    """

    @staticmethod
    def forward(ctx: Any, output: Tensor, bias: Tensor | None, scale: Tensor) -> Tensor:
        """Return Z."""
        ctx.save_for_backward(output, bias, scale)
        return output * scale if bias is None else torch.addcmul((1 - scale) * bias, output, scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of Y and g that are needed."""
        output, bias, scale = ctx.saved_tensors
        needs_output, _, needs_scale = ctx.needs_input_grad
        if not needs_scale:
            return gradient * scale if needs_output else None, None, None
        product, ones = gradient * output, gradient.new_ones(gradient.shape[:-1].numel())
        d_scale = ones @ rows_of(product)  # half the time of a sum over rows
        if bias is not None:
            d_scale -= bias * (ones @ rows_of(gradient))
        return torch.mul(gradient, scale, out=product) if needs_output else None, None, d_scale


def low_rank_linear(
    x: Tensor, weight: Tensor, bias: Tensor | None, up: Tensor, down: Tensor, *, scaling: float
) -> Tensor:
    """Return `x (..., in)` through `W + s up down`, `(..., out)`, by the cheaper of the two orders of contraction."""
    rows = rows_of(x)
    function = DenseLinear if dense_is_cheaper(rows.shape[0], up, down) else LowRankLinear
    return function.apply(rows, weight, bias, up, down, scaling).view(*x.shape[:-1], weight.shape[0])


def rows_of(x: Tensor) -> Tensor:
    """Return `x (..., d)` as a matrix `(n, d)`."""
    return x.reshape(-1, x.shape[-1])


def rescaled(output: Tensor, bias: Tensor | None, scale: Tensor) -> Tensor:
    """Return `g (y - b) + b` for `y (..., out)`, rows scaled by `g (out,)`: y itself, to the bit, where g is 1."""
    return RescaledRows.apply(output, bias, scale)


def dense_is_cheaper(rows: int, up: Tensor, down: Tensor) -> bool:
    """Return whether a step through `W + s U D` takes fewer multiplications than one through the factors.

    Factors: `n k (in + out)` forward and for dX, `n k` times in for dD and out for dU. Dense: `k in out` to sum,
    `n in out` for the gradient of the sum, `k in out` each for dU and dD. Without gradients, the forward's alone.
    """
    out, (rank, inner) = up.shape[0], down.shape
    backward = torch.is_grad_enabled() or revision() < 2
    trains_up, trains_down = (backward and factor.requires_grad for factor in (up, down))
    trained = trains_up + trains_down
    factored = (1 + backward) * rows * rank * (inner + out) + rows * rank * (inner * trains_down + out * trains_up)
    dense = rank * inner * out * (1 + trained) + (rows * inner * out if trained else 0)
    return dense < factored
