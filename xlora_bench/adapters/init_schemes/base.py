"""Base classes of the init schemes."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Generator, Tensor

from xlora_bench.system.options import CheckedOptions


class InitialFactors(NamedTuple):
    """The factors at step 0: `B (out, r)` and `A (r, in)`, fp32."""

    B: Tensor
    A: Tensor


@dataclass(frozen=True, kw_only=True)
class InitScheme(CheckedOptions, ABC):
    """Computes the initial factors of a delta from the frozen weight."""

    config_group: ClassVar[str] = "init_scheme"

    @property
    @abstractmethod
    def name(self) -> str:
        """The scheme's name, as in `init_scheme=<name>`."""

    @abstractmethod
    def init_factors(self, weight: Tensor, rank: int, *, scaling: float, generator: Generator) -> InitialFactors:
        """Return the initial factors for `weight (out, in)`; random draws come from `generator` alone."""


@dataclass(frozen=True, kw_only=True)
class RandomInit(InitScheme):
    """One factor is random and the factor named by `zero` is zero, so that `B A = 0`."""

    zero: Literal["A", "B"] = "B"

    @abstractmethod
    def draw(self, rows: int, columns: int, generator: Generator) -> Tensor:
        """Return a random factor in the orientation of A, `(rows=r, columns=in)`."""

    def init_factors(self, weight: Tensor, rank: int, *, scaling: float, generator: Generator) -> InitialFactors:
        """Return a random `A (r, in)` and `B = 0`; with `zero="A"` a transposed random `(r, out)` as B, and `A = 0`."""
        out_features, in_features = weight.shape
        if self.zero == "B":
            return InitialFactors(torch.zeros(out_features, rank), self.draw(rank, in_features, generator))
        return InitialFactors(self.draw(rank, out_features, generator).T.contiguous(), torch.zeros(rank, in_features))
