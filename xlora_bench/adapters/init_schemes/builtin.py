"""Placeholder for variants with a builtin init."""

from dataclasses import dataclass

from torch import Generator, Tensor

from xlora_bench.adapters.init_schemes.base import InitialFactors, InitScheme


@dataclass(frozen=True, kw_only=True)
class BuiltinInit(InitScheme):
    """The variant's builtin init: `asymmetric` has it in its spec, `peft` in its config; baselines need none."""

    @property
    def name(self) -> str:
        """`builtin`."""
        return "builtin"

    def init_factors(self, weight: Tensor, rank: int, *, scaling: float, generator: Generator) -> InitialFactors:
        """Raise a ValueError: a variant with a builtin init never calls this."""
        raise ValueError("`init_scheme` (='builtin') has no factors: choose a scheme, for instance init_scheme=kaiming")
