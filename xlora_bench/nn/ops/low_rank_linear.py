"""Linear layer with a low-rank update as one autograd function. Computes only the gradients that are needed."""

from typing import Any

import torch
from torch import Tensor


class LowRankLinear(torch.autograd.Function):
    """`Y = X W^T + b + s (X A^T) B^T` for `X (n, in)`, `W (out, in)`, `b (out,)`, `B (out, k)`, `A (k, in)`.

    With the gradient `G (n, out)` of Y and `H = X A^T (n, k)`: `dX = G W + s (G B) A`, `dA = s (G B)^T X`,
    `dB = s G^T H`. W and b are frozen. The low-rank terms of Y and dX are added in place to those of the frozen layer.
    """

    @staticmethod
    def forward(  # noqa: PLR0917 - autograd functions take no keywords
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, B: Tensor, A: Tensor, scaling: float
    ) -> Tensor:
        """Return Y, `(n, out)`."""
        hidden = x @ A.T
        output = x @ weight.T if bias is None else torch.addmm(bias, x, weight.T)
        ctx.scaling = scaling
        _, _, _, trains_B, trains_A, _ = ctx.needs_input_grad
        ctx.save_for_backward(weight, B, A, hidden if trains_B else None, x if trains_A else None)
        return output.addmm_(hidden, B.T, alpha=scaling)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of X, B and A that are needed."""
        weight, B, A, hidden, x = ctx.saved_tensors
        needs_x, _, _, trains_B, trains_A, _ = ctx.needs_input_grad
        inner = gradient @ B if needs_x or trains_A else None
        d_x = (gradient @ weight).addmm_(inner, A, alpha=ctx.scaling) if needs_x else None
        # computed as (k, out): a third of the time of (out, k); then made contiguous for the optimizer
        d_B = (hidden.T @ gradient).mul_(ctx.scaling).T.contiguous() if trains_B else None
        d_A = (inner.T @ x).mul_(ctx.scaling) if inner is not None and trains_A else None
        return d_x, None, None, d_B, d_A, None


class DenseLinear(torch.autograd.Function):
    """Same Y and gradients as `LowRankLinear`, computed with the sum `M = W + s B A`: cheaper for many rows n.

    `Y = X M^T + b`, `dX = G M`, `dB = s (G^T X) A^T`, `dA = s B^T (G^T X)`.
    """

    @staticmethod
    def forward(  # noqa: PLR0917 - autograd functions take no keywords
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, B: Tensor, A: Tensor, scaling: float
    ) -> Tensor:
        """Return Y, `(n, out)`."""
        merged = torch.addmm(weight, B, A, alpha=scaling)
        ctx.scaling = scaling
        ctx.save_for_backward(x, merged, B, A)
        return x @ merged.T if bias is None else torch.addmm(bias, x, merged.T)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of X, B and A that are needed."""
        x, merged, B, A = ctx.saved_tensors
        needs_x, _, _, trains_B, trains_A, _ = ctx.needs_input_grad
        d_x = gradient @ merged if needs_x else None
        d_merged = (gradient.T @ x).mul_(ctx.scaling) if trains_B or trains_A else None
        d_B = d_merged @ A.T if trains_B else None
        d_A = B.T @ d_merged if trains_A else None
        return d_x, None, None, d_B, d_A, None


class RescaledRows(torch.autograd.Function):
    """`Z = g (Y - b) + b` for `Y (..., out)`, `g (out,)` and frozen `b (out,)`. Bit-identical to Y where g is 1.

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
        d_scale = ones @ rows_of(product)  # takes half the time of a sum over rows
        if bias is not None:
            d_scale -= bias * (ones @ rows_of(gradient))
        return torch.mul(gradient, scale, out=product) if needs_output else None, None, d_scale


def low_rank_linear(x: Tensor, weight: Tensor, bias: Tensor | None, B: Tensor, A: Tensor, *, scaling: float) -> Tensor:
    """Return `x (W + s B A)^T + b`, `(..., out)`, for `x (..., in)`. Uses the cheaper autograd function."""
    rows = rows_of(x)
    function = DenseLinear if dense_is_cheaper(rows.shape[0], B, A) else LowRankLinear
    return function.apply(rows, weight, bias, B, A, scaling).view(*x.shape[:-1], weight.shape[0])


def rows_of(x: Tensor) -> Tensor:
    """Return `x (..., d)` as a matrix `(n, d)`."""
    return x.reshape(-1, x.shape[-1])


def rescaled(output: Tensor, bias: Tensor | None, scale: Tensor) -> Tensor:
    """Return `g (y - b) + b` for `output` y `(..., out)`, `bias` b and `scale` g `(out,)`: see `RescaledRows`."""
    return RescaledRows.apply(output, bias, scale)


def dense_is_cheaper(rows: int, B: Tensor, A: Tensor) -> bool:
    """Return whether a step by `DenseLinear` needs fewer multiplications than one by `LowRankLinear`.

    Low rank: `n k (in + out)` for Y, the same for dX, `n k in` for dA, `n k out` for dB. Dense: `k in out` for M,
    `n in out` for the gradient of M, `k in out` each for dB and dA. Products that both need are left out.
    Without gradients, only Y counts.
    """
    out, (rank, inner) = B.shape[0], A.shape
    backward = torch.is_grad_enabled()
    trains_B, trains_A = (backward and factor.requires_grad for factor in (B, A))
    trained = trains_B + trains_A
    factored = (1 + backward) * rows * rank * (inner + out) + rows * rank * (inner * trains_A + out * trains_B)
    dense = rank * inner * out * (1 + trained) + (rows * inner * out if trained else 0)
    return dense < factored
