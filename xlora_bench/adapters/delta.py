"""The trainable update of one frozen weight."""

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

EXACT = (
    *("anchor", "current_factors", "factors", "matrix", "penalty", "post_optimizer_step", "rebuild_buffers"),
    "row_scale",
)
"""Methods of a delta that run without autocast: they compute with small factors, and cost little."""


def autocast_enabled(device: torch.device) -> bool:
    """Return whether autocast is on for `device`; for `meta` torch raises."""
    return device.type != "meta" and torch.is_autocast_enabled(device.type)


def without_autocast(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method of a delta that computes in the dtype of its tensors, also under autocast."""

    @functools.wraps(method)
    def exact(self: "Delta", *args: Any) -> Any:
        device = next((tensor.device for tensor in self.parameters()), torch.device("cpu"))
        if not autocast_enabled(device):
            return method(self, *args)
        with torch.autocast(device.type, enabled=False):
            return method(self, *args)

    return exact


class Delta(nn.Module, ABC):
    """The trainable update `s (B A - B0 A0)` of one frozen weight `(out, in)`.

    Subclasses hold the parameters. Their `current_factors` computes `B (out, r)` and `A (r, in)` from them. `anchor`
    stores the initial factors `B0`, `A0` if `B0 A0` is not zero. So every delta is exactly zero at step 0, and the
    frozen weight is never written. The update is computed as `(B - B0) A + B0 (A - A0)`, which is equal but avoids
    cancellation.

    Precision: the tensors of a delta are fp32, or fp64 in an fp64 model; `model.bfloat16()` leaves them. The methods in
    `EXACT`, also those of subclasses, run without autocast. Only the products with the activations follow it.
    """

    additive: ClassVar[bool] = True
    """Whether the update is `scaling * B @ A` and nothing else. A plain LoRA file can hold such an update."""

    B0: Tensor | None
    A0: Tensor | None

    def __init__(self, *, scaling: float) -> None:
        super().__init__()
        self.scaling = scaling
        self.dropout = 0.0
        self.register_buffer("B0", None)
        self.register_buffer("A0", None)

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name in EXACT:
            if name in vars(cls):
                setattr(cls, name, without_autocast(vars(cls)[name]))

    def match(self, weight: Tensor) -> Self:
        """Move the tensors to the device of the frozen `weight`; they become fp64 if it is, else fp32."""
        return self.to(weight.device, torch.promote_types(weight.dtype, torch.float32))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Apply `fn`, which moves or casts, to all tensors; a cast to fewer bits than fp32 is left out."""

        def moved(tensor: Tensor) -> Tensor:
            result = fn(tensor)
            narrower = tensor.is_floating_point() and result.dtype in (torch.float16, torch.bfloat16)
            return tensor.to(result.device) if narrower else result

        return super()._apply(moved, recurse)

    @abstractmethod
    def current_factors(self) -> tuple[Tensor, Tensor]:
        """Return the current `B (out, r)` and `A (r, in)`, without the anchor."""

    @without_autocast
    def anchor(self) -> None:
        """Store the current trained factors as `B0`, `A0`, so that the update is zero, unless one factor is zero."""
        with torch.enable_grad():
            B, A = self.current_factors()
        if B.any() and A.any():
            self.B0 = B.detach().clone() if B.requires_grad else None
            self.A0 = A.detach().clone() if A.requires_grad else None

    @without_autocast
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
        """Rank r of `current_factors`."""
        return self.current_factors()[1].shape[0]

    @without_autocast
    def matrix(self) -> Tensor:
        """Return the dense update `s (B A - B0 A0)`, `(out, in)`; for merging and tests, not for training."""
        B, A = self.factors()
        return self.scaling * (B @ A)

    def row_scale(self, weight: Tensor) -> Tensor:
        """Return the factors of the rows of `W + update`, `(out,)`; called only if the delta is not `additive`."""
        return torch.ones(len(weight), device=weight.device)

    def penalty(self) -> Tensor | None:
        """Return this delta's regularisation term, already weighted, or None."""
        return None

    def post_optimizer_step(self, step: int) -> None:
        """Change the parameters after optimizer step number `step` (1, 2, ...), for instance by a retraction."""

    def rebuild_buffers(self, weight: Tensor) -> None:
        """Recompute non-persistent buffers from the frozen `weight (out, in)` after a state dict was loaded."""
