"""Weight-decomposed low-rank adaptation."""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from xlora_bench.adapters.base import Delta
from xlora_bench.adapters.lora import LoRA, LowRankDelta
from xlora_bench.init_schemes import Start


class MagnitudeDelta(LowRankDelta):
    """A low-rank delta with a trained length `magnitude (out,)` for each row of the adapted weight."""

    additive = False

    def __init__(self, weight: Tensor, start: Start, *, scaling: float) -> None:
        super().__init__(start, scaling=scaling)
        self.magnitude = nn.Parameter(row_norms(weight, torch.zeros(1), torch.zeros(1), 0.0))

    def row_scale(self, weight: Tensor) -> Tensor:
        """Return `magnitude / ||W + update||` per row `(out,)`; the norm is a constant for the gradient."""
        with torch.no_grad():
            norms = row_norms(weight, *self.factors(), self.scaling)
        return self.magnitude / norms


def row_norms(weight: Tensor, up: Tensor, down: Tensor, scaling: float) -> Tensor:
    """Return the row norms of `W + s up down (out, in)` without forming the sum.

    `||w_i + s u_i D||^2 = ||w_i||^2 + 2 s u_i . (D w_i) + s^2 u_i (D D^T) u_i^T`.
    """
    wide = torch.promote_types(weight.dtype, torch.float32)
    squares = torch.linalg.vector_norm(weight, dim=1, dtype=wide).square()  # nothing of the weight's size is made
    if scaling:
        cross = (up * (weight @ down.T.to(weight.dtype)).to(wide)).sum(dim=1)
        squares = squares + 2 * scaling * cross + scaling**2 * (up @ (down @ down.T) * up).sum(dim=1)
    return squares.clamp_min(0).sqrt()


@dataclass(frozen=True, kw_only=True)
class DoRA(LoRA):
    """`W' = m (W + s B A) / ||W + s B A||`, rows normed, m trained from `||W||`; `r (out + in) + out` parameters.

    Source: arXiv 2402.09353. The norm is not differentiated (section 4.3 there).
    """

    def delta(self, weight: Tensor, start: Start, *, scaling: float, generator: Generator) -> Delta:
        """Train both factors from `start`, and the magnitudes from the rows' norms."""
        return MagnitudeDelta(weight, start, scaling=scaling)

    def parameter_count(self, out_features: int, in_features: int, rank: int) -> int:
        """`r (out + in) + out`."""
        return rank * (out_features + in_features) + out_features
