"""Both factors zero."""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from xlora_bench.init_schemes.base import InitScheme, Start


@dataclass(frozen=True, kw_only=True)
class Zero(InitScheme):
    """`B = 0` and `A = 0`: only for variants that train something besides the two factors.

    A product of two zero factors has no gradient with respect to either of them, so plain low-rank variants refuse it.
    """

    @property
    def name(self) -> str:
        """`zero`."""
        return "zero"

    def start(self, weight: Tensor, rank: int, *, scaling: float, generator: Generator) -> Start:
        """Return two zero factors."""
        out_features, in_features = weight.shape
        return Start(torch.zeros(out_features, rank), torch.zeros(rank, in_features))
