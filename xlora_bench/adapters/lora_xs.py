"""LoRA-XS: trains only an `(r, r)` matrix between frozen factors."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Generator, Tensor

from xlora_bench.adapters.asymmetric import init_middle
from xlora_bench.adapters.delta import Delta
from xlora_bench.adapters.init_schemes import InitialFactors, InitScheme, SVDInit
from xlora_bench.adapters.lora import LoRA, LowRankDelta


@dataclass(frozen=True, kw_only=True)
class LoRAXS(LoRA):
    """`W' = W + s B (R - R0) A` with trained `R (r, r)`; `r^2` parameters.

    B and A are frozen at singular triplets of W, by default the leading ones. `R0` is N(0, 1e-10).
    Source: arXiv 2405.17604.
    """

    supported_inits: ClassVar[tuple[str, ...] | None] = (
        "svd_left",
        "svd_right",
        "svd_both",
        "svd_nosigma",
        "svd_minor",
    )

    def default_init(self) -> InitScheme:
        """Return the init scheme `B = U_r Sigma_r / s`, `A = V_r^T`."""
        return SVDInit(sigma="left")

    def delta(self, weight: Tensor, initial: InitialFactors, *, scaling: float, generator: Generator) -> Delta:
        """Return the delta that trains R alone."""
        core = init_middle("rand", initial.A.shape[0], generator).to(weight.device)
        return LowRankDelta(initial, scaling=scaling, trained=("E",), E=core)

    def parameter_count(self, out_features: int, in_features: int, rank: int) -> int:
        """`r^2`."""
        return rank * rank
