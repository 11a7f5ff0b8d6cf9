"""Kaiming-uniform init scheme, LoRA's default."""

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from xlora_bench.adapters.init_schemes.base import RandomInit


@dataclass(frozen=True, kw_only=True)
class KaimingInit(RandomInit):
    """Kaiming-uniform with `a = sqrt(5)`: entries uniform in `+-1 / sqrt(in)`. The default of loralib and peft.

    Source: arXiv 2106.09685 (LoRA), `loralib`.
    """

    @property
    def name(self) -> str:
        """`kaiming`."""
        return "kaiming"

    def draw(self, rows: int, columns: int, generator: Generator) -> Tensor:
        """Return `(rows, columns)` entries uniform in `+-1 / sqrt(columns)`."""
        bound = 1 / math.sqrt(columns)
        return torch.empty(rows, columns).uniform_(-bound, bound, generator=generator)
