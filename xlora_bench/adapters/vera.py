"""VeRA: vector-based random matrix adaptation."""

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Generator, Tensor, nn

from xlora_bench.adapters.base import Adapter
from xlora_bench.adapters.delta import Delta
from xlora_bench.adapters.init_schemes import BuiltinInit, InitialFactors, InitScheme, KaimingInit
from xlora_bench.system.options import NaturalNumber


class VectorDelta(Delta):
    """`s diag(b) B diag(d) A` with frozen `B (out, r)`, `A (r, in)` and trained `vera_b (out,)`, `vera_d (r,)`."""

    projection_A: Tensor
    projection_B: Tensor

    def __init__(self, initial: InitialFactors, *, scaling: float, d_initial: float) -> None:
        super().__init__(scaling=scaling)
        self.register_buffer("projection_A", initial.A, persistent=False)
        self.register_buffer("projection_B", initial.B, persistent=False)
        self.vera_d = nn.Parameter(torch.full((initial.A.shape[0],), d_initial))
        self.vera_b = nn.Parameter(torch.zeros(initial.B.shape[0]))

    def current_factors(self) -> tuple[Tensor, Tensor]:
        """Return `diag(b) B (out, r)` and `diag(d) A (r, in)`."""
        return self.vera_b[:, None] * self.projection_B, self.vera_d[:, None] * self.projection_A


@dataclass(frozen=True, kw_only=True)
class VeRA(Adapter):
    """`W' = W + s diag(b) B diag(d) A` with frozen random A and B shared by all layers; `r + out` parameters.

    A and B are Kaiming-uniform, drawn from `projection_seed`. Weights of one shape share one copy; adapter files do not
    contain it. `d (r,)` starts at `d_initial`, `b (out,)` at 0. The paper has no scaling, which is `alpha = rank` here.
    Source: arXiv 2310.11454.
    """

    projection_seed: NaturalNumber = 0
    d_initial: float = 0.1

    supported_inits: ClassVar[tuple[str, ...] | None] = ("builtin",)
    rank_limited: ClassVar[bool] = False  # A and B are random: the paper uses rank 1024 on weights of 768 x 768

    def default_init(self) -> InitScheme:
        """Return the builtin init: the shared random A and B."""
        return BuiltinInit()

    def init_factors(
        self, weight: Tensor, rank: int, *, scaling: float, init_scheme: InitScheme, generator: Generator
    ) -> InitialFactors:
        """Return the shared A and B for this shape."""
        out_features, in_features = weight.shape
        return shared_projections(out_features, in_features, rank, self.projection_seed)

    def delta(self, weight: Tensor, initial: InitialFactors, *, scaling: float, generator: Generator) -> Delta:
        """Return the delta that trains b and d. `initial` gives the rank only: A and B follow from the shape."""
        shared = shared_projections(*weight.shape, initial.A.shape[0], self.projection_seed)
        return VectorDelta(shared, scaling=scaling, d_initial=self.d_initial)

    def parameter_count(self, out_features: int, in_features: int, rank: int) -> int:
        """`r + out`."""
        return rank + out_features


@lru_cache(maxsize=64)
def shared_projections(out_features: int, in_features: int, rank: int, seed: int) -> InitialFactors:
    """Return `B (out, r)` and `A (r, in)`, each Kaiming-uniform with its own fan-in; equal arguments, equal draws."""
    generator = torch.Generator().manual_seed(seed)
    A = KaimingInit().draw(rank, in_features, generator)
    return InitialFactors(KaimingInit().draw(out_features, rank, generator), A)
