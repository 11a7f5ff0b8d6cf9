"""DoRA: weight-decomposed low-rank adaptation."""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from xlora_bench.adapters.delta import Delta
from xlora_bench.adapters.init_schemes import InitialFactors
from xlora_bench.adapters.lora import LoRA, LowRankDelta


class MagnitudeDelta(LowRankDelta):
    """A low-rank delta with a trained `magnitude (out,)`: the norm of each row of the adapted weight."""

    additive = False
    squares: Tensor

    def __init__(self, weight: Tensor, initial: InitialFactors, *, scaling: float) -> None:
        super().__init__(initial, scaling=scaling)
        wide = torch.promote_types(weight.dtype, torch.float32)
        norms = torch.linalg.vector_norm(weight, dim=1, dtype=wide)  # allocates nothing of the weight's size
        self.register_buffer("squares", norms.square(), persistent=False)
        self.magnitude = nn.Parameter(self.squares.sqrt())

    def row_scale(self, weight: Tensor) -> Tensor:
        """Return `magnitude / ||W + update||` per row `(out,)`. The norm has no gradient."""
        return self.magnitude / self.row_norms(weight)

    @torch.no_grad()
    def row_norms(self, weight: Tensor) -> Tensor:
        """Return the row norms `(out,)` of `W + s B A` without forming the sum.

        With the rows w_i of W and b_i of B: `||w_i + s b_i A||^2 = ||w_i||^2 + b_i . (2 s A w_i + s^2 A A^T b_i)`. The
        first term is stored in `squares`.
        """
        B, A = self.factors()
        across = (weight @ A.T.to(weight.dtype)).to(B.dtype)
        added = torch.addmm(across, B, A @ A.T, beta=2 * self.scaling, alpha=self.scaling**2).mul_(B).sum(dim=1)
        return added.add_(self.squares).clamp_min_(0).sqrt_()


@dataclass(frozen=True, kw_only=True)
class DoRA(LoRA):
    """`W' = m (W + s B A) / ||W + s B A||` with norms per row; `r (out + in) + out` parameters.

    `m (out,)` is trained and starts at `||W||`. The norm has no gradient (section 4.3). Source: arXiv 2402.09353.
    """

    def delta(self, weight: Tensor, initial: InitialFactors, *, scaling: float, generator: Generator) -> Delta:
        """Return the delta that trains both factors and the magnitudes."""
        return MagnitudeDelta(weight, initial, scaling=scaling)

    def parameter_count(self, out_features: int, in_features: int, rank: int) -> int:
        """`r (out + in) + out`."""
        return rank * (out_features + in_features) + out_features
