"""For variants that bring their own start."""

from dataclasses import dataclass

from torch import Generator, Tensor

from xlora_bench.adapters.init_schemes.base import InitialFactors, InitScheme


@dataclass(frozen=True, kw_only=True)
class BuiltinInit(InitScheme):
    """The variant's own start: `asymmetric` reads it from its spec, `peft` from its config, baselines have none."""

    @property
    def name(self) -> str:
        """`builtin`."""
        return "builtin"

    def init_factors(self, weight: Tensor, rank: int, *, scaling: float, generator: Generator) -> InitialFactors:
        """Refuse: a variant that accepts `builtin` never asks for it."""
        raise ValueError("`init_scheme` (='builtin') has no factors: choose a start, for instance init_scheme=kaiming")
