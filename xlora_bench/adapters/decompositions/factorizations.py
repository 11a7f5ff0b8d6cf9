"""SVD, QR and LDU decompositions of a pretrained weight `W (out, in)`, in fp32 or fp64, with a disk cache.

For the first `rank` terms, only as many terms as `terms` says are computed and cached. This number depends on the rank
and the shape alone, so the init of a run does not depend on earlier runs. `svd`, `qr` and `ldu` compute on one CPU
thread, so the result depends neither on the thread count nor on the device.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from xlora_bench.adapters.decompositions.disk_cache import cached
from xlora_bench.adapters.decompositions.gram_svd import by_gram, singular_values_by_gram
from xlora_bench.system.torch_threads import one_thread

Part = Literal["principal", "minor"]
FEWEST_TERMS = 64


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

    A pivot that is negligible against its row of the upper factor cannot be divided out. `D` then holds the row's
    largest absolute entry instead. The product is still `W[permutation]`; the diagonal of `U` is not 1 in that row.
    """

    permutation: Tensor
    L: Tensor
    D: Tensor
    U: Tensor


class Spectrum(NamedTuple):
    """All singular values `S (min(out, in),)` in descending order."""

    S: Tensor


def at_least_fp32(weight: Tensor) -> Tensor:
    """Return `weight` detached, in fp64 if it is in fp64, else in fp32."""
    weight = weight.detach()
    return weight if weight.dtype == torch.float64 else weight.float()


def terms(rank: int | None, full_rank: int) -> int:
    """Return how many terms are computed if `rank` terms are needed (None: all).

    That is the first of 64, 128, 256, ... that is at least `rank`; or all, if it is more than half of `full_rank`.
    """
    count = FEWEST_TERMS
    while rank is not None and count < rank:
        count *= 2
    return full_rank if rank is None or 2 * count > full_rank else count


def svd(weight: Tensor, *, rank: int | None = None, part: Part = "principal") -> SVD:
    """Return the `rank` largest (principal) or smallest (minor) singular triplets of `weight (out, in)`; None: all.

    Exact to fp32 rounding: `|U S Vh - W_r| <= 1e-6 sigma_1` against the decomposition in fp64; columns orthonormal to
    1e-6. Computed from the eigenvectors of the Gram matrix in fp64 (see `by_gram`). Two cases use LAPACK's gesdd: a
    weight in fp64, and all triplets of a weight with very small sigma_i. Signs: in each column of U, the entry with the
    largest absolute value is positive.
    """
    count = terms(rank, full := min(weight.shape))
    name = "svd" if count == full else f"svd-{part}-{count}"
    parts = cached(SVD, name, weight, lambda: triplets(weight, count, part))
    chosen = slice(None) if rank is None else slice(0, rank)
    if part == "minor" and rank is not None:
        chosen = slice(len(parts.S) - rank, len(parts.S))
    return SVD(parts.U[:, chosen], parts.S[chosen], parts.Vh[chosen])


def triplets(weight: Tensor, count: int, part: Part) -> SVD:
    """Compute the `count` largest or smallest singular triplets."""
    wide = weight.detach().cpu().double()
    dtype = at_least_fp32(weight[:0]).dtype
    computed = None if dtype == torch.float64 else by_gram(wide, count, smallest=part == "minor")
    if computed is None:
        chosen = slice(min(wide.shape) - count, None) if part == "minor" else slice(0, count)
        with one_thread():
            U, S, Vh = torch.linalg.svd(wide, full_matrices=False)
        computed = U[:, chosen], S[chosen], Vh[chosen]
    U, S, Vh = computed
    sign = torch.where(U.gather(0, U.abs().argmax(dim=0, keepdim=True)) < 0, -1.0, 1.0)
    return SVD((U * sign).to(dtype), S.to(dtype), (sign.T * Vh).to(dtype))


def singular_values(weight: Tensor) -> Tensor:
    """Return all `min(out, in)` singular values of `weight`, descending, each exact to 1e-7 sigma_1."""
    return cached(Spectrum, "spectrum", weight, lambda: spectrum(weight)).S


def spectrum(weight: Tensor) -> Spectrum:
    """Compute all singular values."""
    wide = weight.detach().cpu().double()
    if weight.dtype == torch.float64:
        return Spectrum(torch.linalg.svdvals(wide))
    return Spectrum(singular_values_by_gram(wide).float())


def qr(weight: Tensor, *, rank: int | None = None) -> QR:
    """Return the first `rank` columns of Q and rows of R of the reduced QR decomposition of `weight`; None: all.

    The first k columns of Q depend on the first k columns of W alone. `R = Q^T W`. Computed in fp64.
    """
    count = terms(rank, full := min(weight.shape))
    name = "qr" if count == full else f"qr-{count}"
    Q, R = cached(QR, name, weight, lambda: columns(weight, count))
    return QR(Q[:, :rank], R[:rank])


def columns(weight: Tensor, count: int) -> QR:
    """Compute `count` columns of Q and rows of R."""
    wide, dtype = weight.detach().cpu().double(), at_least_fp32(weight[:0]).dtype
    with one_thread():
        Q, _ = torch.linalg.qr(wide[:, :count])
        return QR(Q.to(dtype), (Q.T @ wide).triu().to(dtype))


def ldu(weight: Tensor, *, rank: int | None = None) -> LDU:
    """Return the first `rank` pivots of the row-pivoted LDU decomposition of `weight`; None: all.

    `permutation` always has all rows. Singular matrices are allowed.
    """
    count = terms(rank, full := min(weight.shape))
    name = "ldu" if count == full else f"ldu-{count}"
    permutation, L, D, U = cached(LDU, name, weight, lambda: pivots(weight, count))
    return LDU(permutation, L[:, :rank], D[:rank], U[:rank])


def pivots(weight: Tensor, count: int) -> LDU:
    """Compute `count` terms of the LDU decomposition."""
    weight = at_least_fp32(weight).cpu()
    rows = torch.arange(weight.shape[0])
    with one_thread():
        P, L, U = torch.linalg.lu(weight)
    return scaled((rows.to(P.dtype) @ P).round().long(), L[:, :count], U[:count])


def ldu_along(weight: Tensor, permutation: Tensor) -> LDU:
    """Return the LDU decomposition with the rows in the order `permutation`, instead of LAPACK's own choice."""
    weight = at_least_fp32(weight)
    L, U = (factor.to(weight.dtype) for factor in eliminate(weight[permutation].double()))
    return scaled(permutation, L, U)


def scaled(permutation: Tensor, L: Tensor, U: Tensor) -> LDU:
    """Return `W[permutation] = L U` as L D U: divide each row of U by its pivot, unless the pivot is negligible."""
    diagonal, largest = U.diagonal(), U.abs().amax(dim=1)
    tiny = diagonal.abs() <= torch.finfo(U.dtype).eps * largest
    D = torch.where(tiny, largest.masked_fill(largest == 0, 1.0), diagonal)
    return LDU(permutation, L, D, U / D[:, None])


def eliminate(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Return unit-lower `L (out, k)` and upper `U (k, in)` with `matrix = L U`, by elimination without pivoting.

    If a pivot is negligible against its row, its column of L is set to zero. With a good row order it is zero anyway.
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
    """Return the smallest k such that the k largest singular values hold `threshold` of the sum of squares.

    `k = min { k : sum_{i<=k} S_i^2 >= threshold * sum_i S_i^2 }`, at least 1 and at most `len(S)`.
    """
    energy = singular_values.double().square().cumsum(0)
    needed = threshold * energy[-1]
    return min(int(torch.searchsorted(energy, needed)) + 1, len(energy))
