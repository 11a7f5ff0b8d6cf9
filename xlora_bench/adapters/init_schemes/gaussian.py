"""Gaussian init scheme, as peft's `init_lora_weights="gaussian"`."""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from xlora_bench.adapters.init_schemes.base import RandomInit


@dataclass(frozen=True, kw_only=True)
class GaussianInit(RandomInit):
    """Entries `N(0, 1/r^2)`, as drawn in figure 1 of the LoRA paper (arXiv 2106.09685)."""

    @property
    def name(self) -> str:
        """`gaussian`."""
        return "gaussian"

    def draw(self, rows: int, columns: int, generator: Generator) -> Tensor:
        """Return `(rows, columns)` normal entries with standard deviation `1 / rows`."""
        return torch.empty(rows, columns).normal_(0.0, 1 / rows, generator=generator)
