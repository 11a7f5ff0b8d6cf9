"""LoLDU: trains the diagonal of the LDU decomposition of the pretrained weight."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Generator, Tensor, nn

from xlora_bench.adapters.base import Adapter
from xlora_bench.adapters.decompositions.factorizations import LDU, ldu, ldu_along
from xlora_bench.adapters.delta import Delta
from xlora_bench.adapters.init_schemes import InitialFactors, InitScheme, LDUInit
from xlora_bench.adapters.lora import contiguous_copy

ZInit = Literal["lu", "uniform", "normal", "constant", "s_uniform", "s_normal", "ones", "zeros"]


class DiagonalDelta(Delta):
    """`P L_r diag(sigma z - sigma0 z0) U_r` with trained `z (r,)`. Zero at step 0 without an anchor."""

    permutation: Tensor
    factored: Tensor
    lower: Tensor
    upper: Tensor
    sigma: Tensor
    scaled_z0: Tensor

    def __init__(self, parts: LDU, z: Tensor, *, sigma: float, train_sigma: bool) -> None:
        super().__init__(scaling=1.0)
        rank = len(z)
        self.register_buffer("permutation", parts.permutation.clone())
        self.take(parts, rank)
        self.z = nn.Parameter(z.clone())
        if train_sigma:
            self.sigma = nn.Parameter(torch.tensor(sigma))
        else:
            self.register_buffer("sigma", torch.tensor(sigma))
        self.register_buffer("scaled_z0", sigma * z)

    def take(self, parts: LDU, rank: int) -> None:
        """Store `P L_r`, `U_r` and their row order as non-persistent buffers: the weight determines them."""
        self.register_buffer(
            "lower", contiguous_copy(parts.L[torch.argsort(parts.permutation), :rank]), persistent=False
        )
        self.register_buffer("upper", contiguous_copy(parts.U[:rank]), persistent=False)
        self.register_buffer("factored", parts.permutation.clone(), persistent=False)

    def rebuild_buffers(self, weight: Tensor) -> None:
        """Decompose `weight` again along the loaded permutation, if this machine's LAPACK chose another one."""
        if not torch.equal(self.permutation, self.factored):
            self.take(ldu_along(weight, self.permutation), len(self.z))

    def anchor(self) -> None:
        """Do nothing: `current_factors` already subtracts the initial value."""

    def current_factors(self) -> tuple[Tensor, Tensor]:
        """Return `P L_r (out, r)` and `diag(sigma z - sigma0 z0) U_r (r, in)`."""
        return self.lower, (self.sigma * self.z - self.scaled_z0)[:, None] * self.upper


@dataclass(frozen=True, kw_only=True)
class LoLDU(Adapter):
    """`W' = W + P L_r diag(sigma z - sigma0 z0) U_r` from `W = P L diag(D) U`; `r` parameters, `r + 1` with sigma.

    `L_r`, `U_r` and P (an index vector) are frozen. z is trained, and with `train_sigma` sigma too, whose initial value
    is the scaling. `z_init` chooses z0: the pivots (`lu`), `uniform` in +-|mean D| / 2, `normal` N(mean D, std D),
    `constant` mean D, `s_uniform` in +-1, `s_normal` N(0, 1), `ones`, `zeros`. The initial product is subtracted, so
    the choice matters only with weight decay or `train_sigma`. Source: arXiv 2410.13618 (LoLDU).
    """

    z_init: ZInit = "lu"
    train_sigma: bool = False

    supported_inits: ClassVar[tuple[str, ...] | None] = ("ldu",)

    def default_init(self) -> InitScheme:
        """Return the init scheme of the LDU decomposition."""
        return LDUInit()

    def init_factors(
        self, weight: Tensor, rank: int, *, scaling: float, init_scheme: InitScheme, generator: Generator
    ) -> InitialFactors:
        """Return uninitialised factors of the right rank: `delta` decomposes the weight itself."""
        return InitialFactors(weight.new_empty(weight.shape[0], rank), weight.new_empty(rank, weight.shape[1]))

    def delta(self, weight: Tensor, initial: InitialFactors, *, scaling: float, generator: Generator) -> Delta:
        """Return the delta that trains the first r diagonal entries."""
        parts = ldu(weight, rank=initial.A.shape[0])
        z = init_z(parts.D.cpu(), self.z_init, generator)
        return DiagonalDelta(parts, z, sigma=scaling, train_sigma=self.train_sigma)

    def parameter_count(self, out_features: int, in_features: int, rank: int) -> int:
        """`r`, or `r + 1` with `train_sigma`."""
        return rank + int(self.train_sigma)


def init_z(pivots: Tensor, z_init: ZInit, generator: Generator) -> Tensor:
    """Return `z0 (r,)` for the first r `pivots`."""
    mean = pivots.mean()
    uniform = torch.rand(pivots.shape, generator=generator) * 2 - 1
    normal = torch.randn(pivots.shape, generator=generator)
    std = pivots.std() if len(pivots) > 1 else torch.zeros(())
    inits = {
        "lu": pivots,
        "uniform": uniform * mean.abs() / 2,
        "normal": mean + std * normal,
        "constant": mean.expand(pivots.shape),
        "s_uniform": uniform,
        "s_normal": normal,
        "ones": torch.ones(pivots.shape),
        "zeros": torch.zeros(pivots.shape),
    }
    return inits[z_init]
