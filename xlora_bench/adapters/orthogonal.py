"""LoRA with an orthogonality penalty on B."""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from xlora_bench.adapters.delta import Delta
from xlora_bench.adapters.init_schemes import InitialFactors, InitScheme, OrthonormalInit
from xlora_bench.adapters.lora import LoRA, LowRankDelta
from xlora_bench.system.options import NonNegative


class PenalisedDelta(LowRankDelta):
    """A low-rank delta with the penalty `penalty_weight * ||B^T B - I||_F^2`."""

    def __init__(self, initial: InitialFactors, *, scaling: float, penalty_weight: NonNegative) -> None:
        super().__init__(initial, scaling=scaling)
        self.penalty_weight = penalty_weight

    def penalty(self) -> Tensor | None:
        """Return `penalty_weight * ||B^T B - I_r||_F^2`."""
        gram = self.lora_B.T @ self.lora_B
        return self.penalty_weight * (gram - torch.eye(len(gram), device=gram.device)).square().sum()


@dataclass(frozen=True, kw_only=True)
class FromNonzeroB(LoRA):
    """Base class of the variants that constrain B. They need `B0 != 0`."""

    def default_init(self) -> InitScheme:
        """Return the init scheme with a random orthonormal B and `A = 0`."""
        return OrthonormalInit(zero="A")

    def init_factors(
        self, weight: Tensor, rank: int, *, scaling: float, init_scheme: InitScheme, generator: Generator
    ) -> InitialFactors:
        """Return the initial factors.

        Raises:
            ValueError: if `B0 = 0`: there the penalty has no gradient, and the QR decomposition of B is not unique.
        """
        initial = init_scheme.init_factors(weight, rank, scaling=scaling, generator=generator)
        if not initial.B.any():
            raise self.misfit(
                init_scheme,
                "at B = 0 the constraint on B has no gradient; start with B != 0, for instance orthonormal, svd_left, "
                "or init_scheme.zero=A",
            )
        return initial


@dataclass(frozen=True, kw_only=True)
class Orthogonal(FromNonzeroB):
    """LoRA with the penalty `lambda * mean_layers ||B^T B - I||_F^2` in the training loss; `r (out + in)` parameters.

    The gradient `4 lambda B (B^T B - I)` is zero at `B = 0`, so `B0` must not be zero. Source: X-LoRA, `ortho`.

    Raises:
        ValueError: if `penalty_weight` (lambda) is negative.
    """

    penalty_weight: NonNegative = 0.1

    def delta(self, weight: Tensor, initial: InitialFactors, *, scaling: float, generator: Generator) -> Delta:
        """Return the delta that trains both factors with the penalty."""
        return PenalisedDelta(initial, scaling=scaling, penalty_weight=self.penalty_weight)
