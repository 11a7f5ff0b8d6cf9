"""Init schemes from the singular value decomposition (SVD) of the pretrained weight."""

from dataclasses import dataclass
from typing import Literal

from torch import Generator, Tensor

from xlora_bench.adapters.decompositions.factorizations import svd
from xlora_bench.adapters.init_schemes.base import InitialFactors, InitScheme

PLACES = {"left": (1.0, 0.0), "right": (0.0, 1.0), "both": (0.5, 0.5), "dropped": (0.0, 0.0)}


@dataclass(frozen=True, kw_only=True)
class SVDInit(InitScheme):
    """`B = U_r Sigma_r^p`, `A = Sigma_r^q V_r^T` from `W = U Sigma V^T`; `sigma` chooses the exponents.

    left: `p, q = 1, 0`; right: `0, 1`; both: `1/2, 1/2` (PiSSA); dropped: `0, 0`. `part` chooses the r largest
    (principal) or the r smallest (minor, MiLoRA) singular triplets. `divide_by_scaling` divides the singular values by
    the scaling s first, as in peft's PiSSA. Then `s B A` is exactly that part of `W`, except with `dropped`.
    Sources: X-LoRA (left, right, both, dropped), arXiv 2404.02948 (PiSSA), arXiv 2406.09044 (MiLoRA).
    """

    sigma: Literal["left", "right", "both", "dropped"] = "both"
    part: Literal["principal", "minor"] = "principal"
    divide_by_scaling: bool = True

    @property
    def name(self) -> str:
        """`svd_left`, `svd_right`, `svd_both`, `svd_nosigma` or `svd_minor`."""
        if self.part == "minor":
            return "svd_minor"
        return "svd_nosigma" if self.sigma == "dropped" else f"svd_{self.sigma}"

    def init_factors(self, weight: Tensor, rank: int, *, scaling: float, generator: Generator) -> InitialFactors:
        """Return the factors of the r chosen singular triplets."""
        U, S, Vh = svd(weight, rank=rank, part=self.part)
        sigma = S / scaling if self.divide_by_scaling else S
        left, right = PLACES[self.sigma]
        return InitialFactors(U * sigma**left, sigma[:, None] ** right * Vh)
