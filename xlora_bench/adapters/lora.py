"""Low-rank adaptation."""

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from xlora_bench.adapters.base import Adapter
from xlora_bench.adapters.delta import Delta
from xlora_bench.adapters.init_schemes import InitialFactors


class LowRankDelta(Delta):
    """`s B [E] A` with `lora_B (out, r)`, `lora_A (r, in)`, optional `lora_E (r, r)`; `trained` lists what trains."""

    lora_A: Tensor
    lora_B: Tensor
    lora_E: Tensor | None

    def __init__(
        self, initial: InitialFactors, *, scaling: float, trained: Collection[str] = ("A", "B"), E: Tensor | None = None
    ) -> None:
        super().__init__(scaling=scaling)
        for name, factor in (("A", initial.A), ("B", initial.B), ("E", E)):
            if factor is None or name not in trained:
                self.register_buffer(f"lora_{name}", None if factor is None else contiguous_copy(factor))
            else:
                self.register_parameter(f"lora_{name}", nn.Parameter(contiguous_copy(factor)))

    def current_factors(self) -> tuple[Tensor, Tensor]:
        """Return `B (out, r)` and `A (r, in)`; with a middle factor, `E A` in place of `A`."""
        return self.lora_B, self.lora_A if self.lora_E is None else self.lora_E @ self.lora_A


def contiguous_copy(tensor: Tensor) -> Tensor:
    """Return a contiguous copy with its own storage, so that no larger tensor is kept alive or saved."""
    return tensor.detach().clone(memory_format=torch.contiguous_format)


@dataclass(frozen=True, kw_only=True)
class LoRA(Adapter):
    """`W' = W + s B A` with `B (out, r)` and `A (r, in)` trained; `r (out + in)` parameters.

    Source: arXiv 2106.09685. With `init_scheme=svd_both` it is PiSSA (arXiv 2404.02948), with `qr` it is OLoRA
    (arXiv 2406.01775). Both papers rewrite `W`; here `s B0 A0` is subtracted from the update instead.
    """

    def delta(self, weight: Tensor, initial: InitialFactors, *, scaling: float, generator: Generator) -> Delta:
        """Return the delta that trains both factors."""
        return LowRankDelta(initial, scaling=scaling)

    def parameter_count(self, out_features: int, in_features: int, rank: int) -> int:
        """`r (out + in)`."""
        return rank * (out_features + in_features)
