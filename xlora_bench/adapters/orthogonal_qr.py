"""LoRA with a QR retraction: the columns of B are made orthonormal again every few optimizer steps."""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from xlora_bench.adapters.delta import Delta
from xlora_bench.adapters.init_schemes import InitialFactors
from xlora_bench.adapters.orthogonal import FromNonzeroB, PenalisedDelta
from xlora_bench.system.options import Count, NonNegative


class RetractedDelta(PenalisedDelta):
    """A penalised delta. Every `frequency` optimizer steps `B = Q R` is decomposed, then `B <- Q` and `A <- R A`."""

    def __init__(
        self, initial: InitialFactors, *, scaling: float, frequency: Count, penalty_weight: NonNegative
    ) -> None:
        super().__init__(initial, scaling=scaling, penalty_weight=penalty_weight)
        self.frequency = frequency

    def penalty(self) -> Tensor | None:
        """Return the penalty on B between the retractions, None if its weight is 0."""
        return super().penalty() if self.penalty_weight else None

    @torch.no_grad()
    def post_optimizer_step(self, step: int) -> None:
        """Retract B. The product `B A` does not change. R's diagonal is made positive, so that Q is close to B."""
        if step % self.frequency:
            return
        Q, R = torch.linalg.qr(self.lora_B)
        signs = torch.where(R.diagonal() < 0, -1.0, 1.0)
        self.lora_B.copy_(Q * signs)
        self.lora_A.copy_((signs[:, None] * R) @ self.lora_A)


@dataclass(frozen=True, kw_only=True)
class OrthogonalQR(FromNonzeroB):
    """LoRA with `B^T B = I` restored every `frequency` optimizer steps; `r (out + in)` parameters.

    `B = Q R`, then `B <- Q` and `A <- R A`: the product `B A` and so the output do not change. AdamW's moments are not
    transformed. With `penalty_weight` the penalty of `Orthogonal` acts between the retractions. Source: X-LoRA, `ortho`
    with QR.

    Raises:
        ValueError: if `frequency` is below 1 or `penalty_weight` is negative.
    """

    frequency: Count = 10
    penalty_weight: NonNegative | None = None

    def delta(self, weight: Tensor, initial: InitialFactors, *, scaling: float, generator: Generator) -> Delta:
        """Return the delta that trains both factors with retractions of B."""
        return RetractedDelta(
            initial, scaling=scaling, frequency=self.frequency, penalty_weight=self.penalty_weight or 0.0
        )
