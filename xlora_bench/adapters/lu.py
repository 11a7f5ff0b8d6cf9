"""LoRA with triangular (trapezoidal) factors."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor, nn

from xlora_bench.adapters.base import Adapter
from xlora_bench.adapters.delta import Delta
from xlora_bench.adapters.init_schemes import InitialFactors, InitScheme, UnitDiagonalInit


class LowerTrapezoid(nn.Module):
    """A lower-trapezoidal matrix `(rows, r)`. Only its free entries are parameters.

    `triangle` holds the `r (r + 1) / 2` entries of the leading block row by row. `rest (rows - r, r)` holds the others.
    """

    entries: Tensor

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        rank = matrix.shape[1]
        rows, columns = torch.tril_indices(rank, rank)
        self.register_buffer("entries", rows * rank + columns, persistent=False)
        self.triangle = nn.Parameter(matrix[rows, columns].detach().clone())
        self.rest = nn.Parameter(matrix[rank:].detach().clone(memory_format=torch.contiguous_format))

    def forward(self) -> Tensor:
        """Return the matrix `(rows, r)`."""
        rank = self.rest.shape[1]
        leading = self.triangle.new_zeros(rank * rank).index_put((self.entries,), self.triangle)
        return torch.cat((leading.view(rank, rank), self.rest))


class TriangularDelta(Delta):
    """`s L U`. `lora_B` computes `L (out, r)`, `lora_A` computes `U^T (in, r)`; both are lower-trapezoidal."""

    def __init__(self, initial: InitialFactors, *, scaling: float) -> None:
        super().__init__(scaling=scaling)
        self.lora_B = LowerTrapezoid(initial.B)
        self.lora_A = LowerTrapezoid(initial.A.T)

    def current_factors(self) -> tuple[Tensor, Tensor]:
        """Return `L (out, r)` and `U (r, in)`."""
        return self.lora_B(), self.lora_A().T


@dataclass(frozen=True, kw_only=True)
class LU(Adapter):
    """`W' = W + s (L U - L0 U0)`, L lower- and U upper-trapezoidal; `r (out + in) - r (r - 1)` parameters.

    The initial factors are cut to the trapezoids, so only random init schemes fit. Source: X-LoRA, `struct` with `lu`.
    """

    supported_inits: ClassVar[tuple[str, ...] | None] = ("unit_diagonal", "kaiming", "gaussian", "orthonormal")

    def default_init(self) -> InitScheme:
        """Return the init scheme with unit diagonals and small other entries."""
        return UnitDiagonalInit()

    def delta(self, weight: Tensor, initial: InitialFactors, *, scaling: float, generator: Generator) -> Delta:
        """Return the delta that trains the free entries of both trapezoids."""
        return TriangularDelta(initial, scaling=scaling)

    def parameter_count(self, out_features: int, in_features: int, rank: int) -> int:
        """`r (out + in) - r (r - 1)`."""
        return rank * (out_features + in_features) - rank * (rank - 1)
