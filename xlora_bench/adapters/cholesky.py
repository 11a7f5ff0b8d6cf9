"""LoRA with one triangular factor and its transpose."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from xlora_bench.adapters.base import Adapter
from xlora_bench.adapters.delta import Delta
from xlora_bench.adapters.init_schemes import InitialFactors, InitScheme, UnitDiagonalInit
from xlora_bench.adapters.lu import LowerTrapezoid


class CholeskyDelta(Delta):
    """`s L diag(signs) L^T` with a lower-trapezoidal `L (n, r)`, computed by `lora_B`."""

    signs: Tensor

    def __init__(self, initial: InitialFactors, *, scaling: float, signs: Tensor) -> None:
        super().__init__(scaling=scaling)
        self.lora_B = LowerTrapezoid(initial.B)
        self.register_buffer("signs", signs)

    def current_factors(self) -> tuple[Tensor, Tensor]:
        """Return `L (n, r)` and `diag(signs) L^T (r, n)`."""
        L = self.lora_B()
        return L, self.signs[:, None] * L.T


@dataclass(frozen=True, kw_only=True)
class Cholesky(Adapter):
    """`W' = W + s (L L^T - L0 L0^T)` for square `W (n, n)`; `r n - r (r - 1) / 2` parameters.

    The update is symmetric, and `L L^T` is positive semi-definite. `signed` uses alternating signs instead,
    `L diag(1, -1, 1, ...) L^T`, so that eigenvalues of both signs are possible. The update is quadratic in L and has
    no gradient at `L = 0`. So `L0` must not be zero. Source: X-LoRA, `struct` with `cholesky`.

    Raises:
        ValueError: from `build`, if the weight is not square.
    """

    signed: bool = False

    supported_inits: ClassVar[tuple[str, ...] | None] = ("unit_diagonal", "orthonormal")

    def default_init(self) -> InitScheme:
        """Return the init scheme with a unit diagonal and small other entries."""
        return UnitDiagonalInit()

    def delta(self, weight: Tensor, initial: InitialFactors, *, scaling: float, generator: Generator) -> Delta:
        """Return the delta that trains the free entries of L."""
        signs = torch.ones(initial.B.shape[1])
        if self.signed:
            signs[1::2] = -1.0
        return CholeskyDelta(initial, scaling=scaling, signs=signs)

    def init_factors(
        self, weight: Tensor, rank: int, *, scaling: float, init_scheme: InitScheme, generator: Generator
    ) -> InitialFactors:
        """Return the initial factors. Only `B` is used, as `L0`."""
        out_features, in_features = weight.shape
        if out_features != in_features:
            raise ValueError(
                f"`adapter` (=cholesky) needs a square weight, this one is {out_features} x {in_features}; choose "
                "square targets, for instance targets=attention_qv, or adapter=lu"
            )
        initial = super().init_factors(weight, rank, scaling=scaling, init_scheme=init_scheme, generator=generator)
        if not initial.B.any():
            raise self.misfit(init_scheme, "L = 0 has no gradient; set init_scheme.zero=A")
        return initial

    def parameter_count(self, out_features: int, in_features: int, rank: int) -> int:
        """`r n - r (r - 1) / 2`."""
        return rank * out_features - rank * (rank - 1) // 2
