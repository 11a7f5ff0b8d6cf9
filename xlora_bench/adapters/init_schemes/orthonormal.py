"""Random orthonormal init scheme."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor

from xlora_bench.adapters.init_schemes.base import RandomInit


@dataclass(frozen=True, kw_only=True)
class OrthonormalInit(RandomInit):
    """One factor is Haar-random and orthonormal: `B^T B = I_r`, or `A A^T = I_r` with `zero="B"`.

    Default `zero="A"`, since the orthogonal variants need `B != 0`. Source: arXiv 2402.16842 (asymmetry), `rand`.
    """

    zero: Literal["A", "B"] = "A"

    @property
    def name(self) -> str:
        """`orthonormal`."""
        return "orthonormal"

    def draw(self, rows: int, columns: int, generator: Generator) -> Tensor:
        """Return `rows` orthonormal rows of length `columns`."""
        return orthonormal_rows(rows, columns, generator)


def orthonormal_rows(rows: int, columns: int, generator: Generator) -> Tensor:
    """Return a Haar-random `A (rows, columns)` with `A A^T = I`: Q of a Gaussian matrix, with `diag(R) > 0`."""
    Q, R = torch.linalg.qr(torch.randn(columns, rows, generator=generator))
    return (Q * R.diagonal().sign()).T.contiguous()
