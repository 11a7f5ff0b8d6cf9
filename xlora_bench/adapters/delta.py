"""The trainable update of one frozen weight."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn


class Delta(nn.Module, ABC):
    """The update `s (up down - up0 down0)` of one frozen weight, seen as an `(out, in)` matrix.

    Subclasses hold the parameters and say in `current_factors` which `up (out, r)` and `down (r, in)` they make.
    `anchor` keeps the starting factors wherever their product is not zero, so that every delta is exactly zero at
    step 0 and the frozen weight is never written. It is computed as `(up - up0) down + up0 (down - down0)`: equal,
    without cancellation.
    """

    additive: ClassVar[bool] = True
    """Whether the update is `scaling * up @ down` and nothing else, so that a plain LoRA file can hold it."""

    up0: Tensor | None
    down0: Tensor | None

    def __init__(self, *, scaling: float) -> None:
        super().__init__()
        self.scaling = scaling
        self.dropout = 0.0
        self.register_buffer("up0", None)
        self.register_buffer("down0", None)

    @abstractmethod
    def current_factors(self) -> tuple[Tensor, Tensor]:
        """Return `up (out, r)` and `down (r, in)` as they stand now, without the anchor."""

    def anchor(self) -> None:
        """Subtract the product of the factors as they stand now from the update, unless it is zero."""
        with torch.enable_grad():
            up, down = self.current_factors()
        if up.any() and down.any():
            self.up0 = up.detach().clone() if up.requires_grad else None
            self.down0 = down.detach().clone() if down.requires_grad else None

    def factors(self) -> tuple[Tensor, Tensor]:
        """Return `up (out, k)` and `down (k, in)` of the unscaled update; `k = 2r` if both factors are anchored."""
        up, down = self.current_factors()
        if self.up0 is not None and self.down0 is not None:
            return torch.cat((up - self.up0, self.up0), dim=1), torch.cat((down, down - self.down0))
        if self.up0 is not None:
            return up - self.up0, down
        if self.down0 is not None:
            return up, down - self.down0
        return up, down

    @property
    def rank(self) -> int:
        """The rank r of the trained factors."""
        return self.current_factors()[1].shape[0]

    def matrix(self) -> Tensor:
        """Return the dense update `(out, in)`, scaling included; for merging and tests, not for training."""
        up, down = self.factors()
        return self.scaling * (up @ down)

    def row_scale(self, weight: Tensor) -> Tensor:
        """Return what multiplies each row of `W + update`, `(out,)`; asked for only if the delta is not `additive`."""
        return torch.ones(len(weight), device=weight.device)

    def penalty(self) -> Tensor | None:
        """Return this delta's share of a regularisation term, weight included, or None."""
        return None

    def after_step(self, step: int) -> None:
        """Act on the parameters after optimizer step number `step` (1, 2, ...), for instance a retraction."""

    def restore(self, weight: Tensor) -> None:
        """Make what state dicts leave out fit to a state that was just loaded, from the frozen `weight (out, in)`."""
