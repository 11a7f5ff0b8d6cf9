"""Matrix decompositions of a pretrained weight `W (out, in)`, computed in fp32 or better, tested by rebuilding `W`."""

from typing import NamedTuple

import torch
from torch import Tensor

from xlora_bench.remember import remembered


class SVD(NamedTuple):
    """`W = U diag(S) Vh` with `U (out, k)`, `S (k,)` descending, `Vh (k, in)`, `k = min(out, in)`."""

    U: Tensor
    S: Tensor
    Vh: Tensor


class QR(NamedTuple):
    """`W = Q R` with orthonormal columns `Q (out, k)` and upper-trapezoidal `R (k, in)`."""

    Q: Tensor
    R: Tensor


class LDU(NamedTuple):
    """`W[permutation] = L diag(D) U` with lower `L (out, k)`, `D (k,)`, unit-upper `U (k, in)`.

    A pivot that vanishes against its row of the upper factor cannot be divided out: `D` then holds that row's largest
    entry instead, so that the product is still `W` and `U` stays bounded (its diagonal is then not 1 in that row).
    """

    permutation: Tensor
    L: Tensor
    D: Tensor
    U: Tensor


def at_least_fp32(weight: Tensor) -> Tensor:
    """Return `weight` detached, in fp32 unless it is wider already."""
    weight = weight.detach()
    return weight if weight.dtype == torch.float64 else weight.float()


@remembered
def svd(weight: Tensor) -> SVD:
    """Return the thin singular value decomposition of `weight (out, in)`."""
    return SVD(*torch.linalg.svd(at_least_fp32(weight), full_matrices=False))


def singular_values(weight: Tensor) -> Tensor:
    """Return all `min(out, in)` singular values of `weight`, descending."""
    return torch.linalg.svdvals(at_least_fp32(weight))


@remembered
def qr(weight: Tensor) -> QR:
    """Return the reduced QR decomposition of `weight (out, in)`."""
    return QR(*torch.linalg.qr(at_least_fp32(weight)))


@remembered
def ldu(weight: Tensor) -> LDU:
    """Return the row-pivoted LDU decomposition of `weight (out, in)`; singular matrices included."""
    weight = at_least_fp32(weight)
    rows = torch.arange(weight.shape[0], device=weight.device)
    P, L, U = torch.linalg.lu(weight)
    return scaled((rows.to(P.dtype) @ P).round().long(), L, U)


def ldu_along(weight: Tensor, permutation: Tensor) -> LDU:
    """Return the LDU decomposition with the rows in a given order, whichever this machine's LAPACK would choose."""
    weight = at_least_fp32(weight)
    L, U = (factor.to(weight.dtype) for factor in eliminate(weight[permutation].double()))
    return scaled(permutation, L, U)


def scaled(permutation: Tensor, L: Tensor, U: Tensor) -> LDU:
    """Divide the pivots out of the rows of the upper factor, where they can be."""
    pivots, largest = U.diagonal(), U.abs().amax(dim=1)
    tiny = pivots.abs() <= torch.finfo(U.dtype).eps * largest
    D = torch.where(tiny, largest.masked_fill(largest == 0, 1.0), pivots)
    return LDU(permutation, L, D, U / D[:, None])


def eliminate(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Return unit-lower `L (out, k)` and upper `U (k, in)` with `matrix = L U`, by elimination without pivoting.

    A pivot that vanishes against its row eliminates nothing: its column is zero where a row order was good.
    """
    work, k = matrix.clone(), min(matrix.shape)
    tolerance = torch.finfo(torch.float32).eps
    for step in range(k):
        pivot, row, column = work[step, step], work[step, step + 1 :], work[step + 1 :, step]
        if pivot.abs() <= tolerance * work[step, step:].abs().amax():
            column.zero_()
        else:
            column.div_(pivot)
        work[step + 1 :, step + 1 :] -= torch.outer(column, row)
    L = work[:, :k].tril(-1)
    L.diagonal().fill_(1.0)
    return L, work[:k].triu()


def energy_rank(singular_values: Tensor, threshold: float) -> int:
    """Return the smallest k whose leading singular values hold `threshold` of the sum of squares.

    `k = min { k : sum_{i<=k} S_i^2 >= threshold * sum_i S_i^2 }`, at least 1 and at most `len(S)`.
    """
    energy = singular_values.double().square().cumsum(0)
    needed = threshold * energy[-1]
    return min(int(torch.searchsorted(energy, needed)) + 1, len(energy))
