"""Init scheme from the QR decomposition of the pretrained weight (OLoRA)."""

from dataclasses import dataclass

from torch import Generator, Tensor

from xlora_bench.adapters.decompositions.factorizations import qr
from xlora_bench.adapters.init_schemes.base import InitialFactors, InitScheme


@dataclass(frozen=True, kw_only=True)
class QRInit(InitScheme):
    """`B = Q[:, :r]`, `A = R[:r]` from `W = Q R`. Source: arXiv 2406.01775 (OLoRA)."""

    @property
    def name(self) -> str:
        """`qr`."""
        return "qr"

    def init_factors(self, weight: Tensor, rank: int, *, scaling: float, generator: Generator) -> InitialFactors:
        """Return the first r columns of Q and rows of R."""
        Q, R = qr(weight, rank=rank)
        return InitialFactors(Q, R)
