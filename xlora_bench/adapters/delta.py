"""The trainable update of one frozen weight."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn


class Delta(nn.Module, ABC):
    """The update `s (B A - B0 A0)` of one frozen weight, seen as an `(out, in)` matrix.

    Subclasses hold the parameters and return in `current_factors` the `B (out, r)` and `A (r, in)` that they make.
    `anchor` keeps the starting factors wherever their product is not zero, so that every delta is exactly zero at
    step 0 and the frozen weight is never written. It is computed as `(B - B0) A + B0 (A - A0)`: equal,
    without cancellation.
    """

    additive: ClassVar[bool] = True
    """Whether the update is `scaling * B @ A` and nothing else, so that a plain LoRA file can hold it."""

    B0: Tensor | None
    A0: Tensor | None

    def __init__(self, *, scaling: float) -> None:
        super().__init__()
        self.scaling = scaling
        self.dropout = 0.0
        self.register_buffer("B0", None)
        self.register_buffer("A0", None)

    @abstractmethod
    def current_factors(self) -> tuple[Tensor, Tensor]:
        """Return `B (out, r)` and `A (r, in)` as they stand now, without the anchor."""

    def anchor(self) -> None:
        """Subtract the product of the factors as they stand now from the update, unless it is zero."""
        with torch.enable_grad():
            B, A = self.current_factors()
        if B.any() and A.any():
            self.B0 = B.detach().clone() if B.requires_grad else None
            self.A0 = A.detach().clone() if A.requires_grad else None

    def factors(self) -> tuple[Tensor, Tensor]:
        """Return `B (out, k)` and `A (k, in)` of the unscaled update; `k = 2r` if both factors are anchored."""
        B, A = self.current_factors()
        if self.B0 is not None and self.A0 is not None:
            return torch.cat((B - self.B0, self.B0), dim=1), torch.cat((A, A - self.A0))
        if self.B0 is not None:
            return B - self.B0, A
        if self.A0 is not None:
            return B, A - self.A0
        return B, A

    @property
    def rank(self) -> int:
        """The rank r of the trained factors."""
        return self.current_factors()[1].shape[0]

    def matrix(self) -> Tensor:
        """Return the dense update `(out, in)`, scaling included; for merging and tests, not for training."""
        B, A = self.factors()
        return self.scaling * (B @ A)

    def row_scale(self, weight: Tensor) -> Tensor:
        """Return what multiplies each row of `W + update`, `(out,)`; asked for only if the delta is not `additive`."""
        return torch.ones(len(weight), device=weight.device)

    def penalty(self) -> Tensor | None:
        """Return this delta's share of a regularisation term, weight included, or None."""
        return None

    def post_optimizer_step(self, step: int) -> None:
        """Act on the parameters after optimizer step number `step` (1, 2, ...), for instance a retraction."""

    def rebuild_buffers(self, weight: Tensor) -> None:
        """Make what state dicts leave out fit to a state that was just loaded, from the frozen `weight (out, in)`."""
