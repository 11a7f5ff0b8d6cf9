"""Init scheme from the pivoted LDU decomposition of the pretrained weight."""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from xlora_bench.adapters.decompositions.factorizations import ldu
from xlora_bench.adapters.init_schemes.base import InitialFactors, InitScheme


@dataclass(frozen=True, kw_only=True)
class LDUInit(InitScheme):
    """`B = P L[:, :r]`, `A = diag(D_r) U[:r]` from `W = P L diag(D) U`. Source: arXiv 2410.13618 (LoLDU).

    These are the first r pivots, not the best rank-r approximation of `W`.
    """

    @property
    def name(self) -> str:
        """`ldu`."""
        return "ldu"

    def init_factors(self, weight: Tensor, rank: int, *, scaling: float, generator: Generator) -> InitialFactors:
        """Return the factors of the first r pivots; the rows of L are put back into the order of W."""
        permutation, L, D, U = ldu(weight, rank=rank)
        return InitialFactors(L[torch.argsort(permutation)], D[:, None] * U)
