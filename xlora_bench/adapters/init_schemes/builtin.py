"""For variants that bring their own start."""

from dataclasses import dataclass

from torch import Generator, Tensor

from xlora_bench.adapters.init_schemes.base import InitScheme, Start


@dataclass(frozen=True, kw_only=True)
class BuiltinInit(InitScheme):
    """The variant's own start: `asymmetric` reads it from its spec, `peft` from its config, baselines have none."""

    @property
    def name(self) -> str:
        """`own`."""
        return "own"

    def start(self, weight: Tensor, rank: int, *, scaling: float, generator: Generator) -> Start:
        """Refuse: a variant that accepts `own` never asks for it."""
        raise ValueError("`init_scheme` (='own') has no factors: choose a start, for instance init_scheme=kaiming")
