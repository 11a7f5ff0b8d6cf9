"""Init scheme of the structured (triangular) variants of X-LoRA."""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from xlora_bench.adapters.init_schemes.base import InitialFactors, InitScheme
from xlora_bench.system.options import Positive


@dataclass(frozen=True, kw_only=True)
class UnitDiagonalInit(InitScheme):
    """Both factors have ones on the diagonal and `N(0, std^2)` elsewhere. Source: X-LoRA, structured variants."""

    std: Positive = 0.02

    @property
    def name(self) -> str:
        """`unit_diagonal`."""
        return "unit_diagonal"

    def init_factors(self, weight: Tensor, rank: int, *, scaling: float, generator: Generator) -> InitialFactors:
        """Return random factors with ones on their diagonals."""
        out_features, in_features = weight.shape
        B = torch.empty(out_features, rank).normal_(0.0, self.std, generator=generator)
        A = torch.empty(rank, in_features).normal_(0.0, self.std, generator=generator)
        return InitialFactors(B.fill_diagonal_(1.0), A.fill_diagonal_(1.0))
