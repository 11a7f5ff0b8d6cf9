"""Init scheme with both factors zero."""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from xlora_bench.adapters.init_schemes.base import InitialFactors, InitScheme


@dataclass(frozen=True, kw_only=True)
class ZeroInit(InitScheme):
    """`B = 0` and `A = 0`. Variants with two factors refuse it: neither factor would ever get a gradient.

    A variant that can learn from it accepts it by overriding `Adapter.init_factors`.
    """

    @property
    def name(self) -> str:
        """`zero`."""
        return "zero"

    def init_factors(self, weight: Tensor, rank: int, *, scaling: float, generator: Generator) -> InitialFactors:
        """Return two zero factors."""
        out_features, in_features = weight.shape
        return InitialFactors(torch.zeros(out_features, rank), torch.zeros(rank, in_features))
