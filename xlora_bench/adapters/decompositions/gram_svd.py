"""Singular value decomposition from the eigenvectors of the Gram matrix, in fp64."""

from typing import Any

import torch
from torch import Tensor

from xlora_bench.system.torch_threads import one_thread

SMALLEST = 1e-9
"""Eigenvalues below this fraction of the Gram matrix's 1-norm are too small: see `by_gram`."""


def by_gram(matrix: Tensor, count: int, *, smallest: bool = False) -> tuple[Tensor, Tensor, Tensor] | None:
    """Return `U (out, count)`, `S` descending and `Vh (count, in)` of a matrix in fp64 from its smaller Gram matrix.

    `W W^T = U S^2 U^T` by LAPACK's syevr, which computes only the `count` largest (or smallest) eigenvectors. Then
    `S Vh = U^T W`, row by row. A tall matrix uses `W^T W`. The angles between the rows of Vh have an error of about
    eps_64 (sigma_1 / sigma_i)^2, at most about 1e-7. If a sigma_i is too small for this bound, the subspace is still
    accurate, and `U^T W` is decomposed by LAPACK's gesdd. Returns None if `U^T W` is not smaller than W.
    """
    tall = matrix.shape[0] > matrix.shape[1]
    wide = matrix.T if tall else matrix
    with one_thread():
        squares, vectors, norm = eigenpairs(wide, count, smallest=smallest)
        other = vectors.T @ wide
        if squares[-1] > SMALLEST * norm:
            S = other.norm(dim=1)
            other /= S[:, None]
        elif count < len(vectors):
            turn, S, other = torch.linalg.svd(other, full_matrices=False)
            vectors = vectors @ turn
        else:
            return None
    return (other.T, S, vectors.T) if tall else (vectors, S, other)


def eigenpairs(wide: Tensor, count: int, *, smallest: bool) -> tuple[Tensor, Tensor, float]:
    """Return `count` eigenvalues of `wide wide^T`, descending, the eigenvectors as columns, and the 1-norm."""
    from scipy.linalg import eigh  # noqa: PLC0415 - slow to import

    gram = wide @ wide.T
    size = len(gram)
    options: dict[str, Any] = {"driver": "evd"}
    if count < size:
        ends = [0, count - 1] if smallest else [size - count, size - 1]
        options = {"driver": "evr", "subset_by_index": ends}
    values, vectors = eigh(gram.numpy(), **options)
    largest_first = torch.arange(count - 1, -1, -1)
    norm = gram.abs().sum(dim=0).max().item()
    return torch.from_numpy(values)[largest_first], torch.from_numpy(vectors)[:, largest_first], norm


def singular_values_by_gram(matrix: Tensor) -> Tensor:
    """Return all singular values of a matrix in fp64, descending, each with an absolute error below 2e-8 sigma_1."""
    from scipy.linalg import eigvalsh  # noqa: PLC0415 - slow to import

    wide = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    with one_thread():
        squares = torch.from_numpy(eigvalsh((wide @ wide.T).numpy()))
    return squares.clamp(min=0).sqrt().flip(0)
