"""VeRA: vector-based random matrix adaptation."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Self

import torch
from torch import Generator, Tensor, nn

from xlora_bench.adapters.base import Adapter
from xlora_bench.adapters.delta import Delta
from xlora_bench.adapters.init_schemes import BuiltinInit, InitialFactors, InitScheme, KaimingInit
from xlora_bench.system.options import NaturalNumber

CPU = torch.device("cpu")


class VectorDelta(Delta):
    """`s diag(b) B diag(d) A` with frozen `B (out, r)`, `A (r, in)` and trained `vera_b (out,)`, `vera_d (r,)`.

    All deltas with equal `projections` share two tensors per device and dtype, also after the model was moved.
    """

    projection_A: Tensor | None
    projection_B: Tensor | None

    def __init__(self, projections: "Projections", *, scaling: float, d_initial: float) -> None:
        super().__init__(scaling=scaling)
        self.projections = projections
        self.register_buffer("projection_A", None, persistent=False)
        self.register_buffer("projection_B", None, persistent=False)
        self.vera_d = nn.Parameter(torch.full((projections.rank,), d_initial))
        self.vera_b = nn.Parameter(torch.zeros(projections.out_features))
        self.share()

    def share(self) -> None:
        """Take the shared B and A of the device and dtype of the trained vectors."""
        d = self.vera_d
        self.projection_B, self.projection_A = shared_projections(self.projections, d.device, d.dtype)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self.projection_A = self.projection_B = None
        super()._apply(fn, recurse)
        self.share()
        return self

    def current_factors(self) -> tuple[Tensor, Tensor]:
        """Return `diag(b) B (out, r)` and `diag(d) A (r, in)`."""
        assert self.projection_A is not None
        assert self.projection_B is not None
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
        return shared_projections(Projections(out_features, in_features, rank, self.projection_seed))

    def delta(self, weight: Tensor, initial: InitialFactors, *, scaling: float, generator: Generator) -> Delta:
        """Return the delta that trains b and d. `initial` gives the rank only: A and B follow from the shape."""
        out_features, in_features = weight.shape
        projections = Projections(out_features, in_features, initial.A.shape[0], self.projection_seed)
        return VectorDelta(projections, scaling=scaling, d_initial=self.d_initial)

    def parameter_count(self, out_features: int, in_features: int, rank: int) -> int:
        """`r + out`."""
        return rank + out_features


@dataclass(frozen=True)
class Projections:
    """What the frozen factors follow from: `B (out, r)` and `A (r, in)`, drawn from `seed`."""

    out_features: int
    in_features: int
    rank: int
    seed: int


@lru_cache(maxsize=64)
def shared_projections(
    of: Projections, device: torch.device = CPU, dtype: torch.dtype = torch.float32
) -> InitialFactors:
    """Return B and A, each Kaiming-uniform with its own fan-in; equal arguments give the same tensors."""
    if (device, dtype) != (CPU, torch.float32):
        B, A = shared_projections(of)
        return InitialFactors(B.to(device, dtype), A.to(device, dtype))
    generator = torch.Generator().manual_seed(of.seed)
    A = KaimingInit().draw(of.rank, of.in_features, generator)
    return InitialFactors(KaimingInit().draw(of.out_features, of.rank, generator), A)
