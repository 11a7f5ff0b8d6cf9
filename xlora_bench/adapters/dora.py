"""Weight-decomposed low-rank adaptation."""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from xlora_bench.adapters.delta import Delta
from xlora_bench.adapters.init_schemes import InitialFactors
from xlora_bench.adapters.lora import LoRA, LowRankDelta


class MagnitudeDelta(LowRankDelta):
    """A low-rank delta with a trained length `magnitude (out,)` for each row of the adapted weight."""

    additive = False
    squares: Tensor

    def __init__(self, weight: Tensor, initial: InitialFactors, *, scaling: float) -> None:
        super().__init__(initial, scaling=scaling)
        wide = torch.promote_types(weight.dtype, torch.float32)
        norms = torch.linalg.vector_norm(weight, dim=1, dtype=wide)  # nothing of the weight's size is made
        self.register_buffer("squares", norms.square(), persistent=False)
        self.magnitude = nn.Parameter(self.squares.sqrt())

    def row_scale(self, weight: Tensor) -> Tensor:
        """Return `magnitude / ||W + update||` per row `(out,)`; the norm is a constant for the gradient."""
        return self.magnitude / self.row_norms(weight)

    @torch.no_grad()
    def row_norms(self, weight: Tensor) -> Tensor:
        """Return the row norms of `W + s B A (out, in)` without forming the sum.

        `||w_i + s u_i D||^2 = ||w_i||^2 + u_i . (2 s D w_i + s^2 D D^T u_i^T)`, the first term kept.
        """
        B, A = self.factors()
        across = (weight @ A.T.to(weight.dtype)).to(B.dtype)
        added = torch.addmm(across, B, A @ A.T, beta=2 * self.scaling, alpha=self.scaling**2).mul_(B).sum(dim=1)
        return added.add_(self.squares).clamp_min_(0).sqrt_()


@dataclass(frozen=True, kw_only=True)
class DoRA(LoRA):
    """`W' = m (W + s B A) / ||W + s B A||`, rows normed, m trained from `||W||`; `r (out + in) + out` parameters.

    Source: arXiv 2402.09353. The norm is not differentiated (section 4.3 there).
    """

    def delta(self, weight: Tensor, initial: InitialFactors, *, scaling: float, generator: Generator) -> Delta:
        """Train both factors from `start`, and the magnitudes from the rows' norms."""
        return MagnitudeDelta(weight, initial, scaling=scaling)

    def parameter_count(self, out_features: int, in_features: int, rank: int) -> int:
        """`r (out + in) + out`."""
        return rank * (out_features + in_features) + out_features
