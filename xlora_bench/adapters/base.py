"""Base class of the LoRA variants. An `Adapter` (options) builds a `Delta` (trainable update) per adapted weight."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from annotated_types import Gt, Le
from torch import Generator, Tensor

from xlora_bench.adapters.decompositions.factorizations import energy_rank, singular_values
from xlora_bench.adapters.delta import Delta
from xlora_bench.adapters.init_schemes import InitialFactors, InitScheme, KaimingInit
from xlora_bench.adapters.patterns import pattern_value
from xlora_bench.system.options import CheckedOptions, Count, Fraction, OptionsError, Positive, fault


@dataclass(frozen=True, kw_only=True)
class Adapter(CheckedOptions, ABC):
    """Options of a LoRA variant. `delta` builds the trainable update of one weight `(out, in)`.

    `scaling = alpha / rank`, or `alpha / sqrt(rank)` with `use_rslora`. `rank="auto"` takes, per weight, the smallest
    rank whose singular values hold `energy_threshold` of the sum of squares, clamped to `[rank_min, rank_max]`;
    `rank="sqrt"` takes `floor(sqrt(min(out, in)))`.
    `rank_pattern` and `alpha_pattern` map module names (or their dotted endings) to other values. `dropout` is the
    dropout probability of the adapter's input. `bias` says which biases train: none, all, or those of adapted layers.

    Raises:
        ValueError: if an option is outside its range.
    """

    config_group: ClassVar[str] = "adapter"

    rank: Count | Literal["auto", "sqrt"] = field(default=8, kw_only=False)
    alpha: Positive = 16.0
    use_rslora: bool = False
    dropout: Fraction = 0.0
    bias: Literal["none", "all", "adapted"] = "none"
    energy_threshold: Annotated[float, Gt(0), Le(1)] = 0.9
    rank_min: Count = 1
    rank_max: Count | None = None
    rank_pattern: Mapping[str, Count] = field(default_factory=dict)
    alpha_pattern: Mapping[str, Positive] = field(default_factory=dict)

    supported_inits: ClassVar[tuple[str, ...] | None] = None
    """Names of the init schemes that fit. None: every scheme whose two factors are not both zero."""
    rank_limited: ClassVar[bool] = True
    """Whether a rank above `min(out, in)` is refused."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rank_max is not None and self.rank_min > self.rank_max:
            rule = f"must be at most `adapter.rank_max` (={self.rank_max})"
            raise OptionsError([fault("adapter.rank_min", self.rank_min, rule)])

    @property
    def name(self) -> str:
        """Name of the variant in messages."""
        return type(self).__name__.lower()

    def default_init(self) -> InitScheme:
        """Return the init scheme that is used when none is chosen."""
        return KaimingInit()

    @abstractmethod
    def delta(self, weight: Tensor, initial: InitialFactors, *, scaling: float, generator: Generator) -> Delta:
        """Return the trainable update of `weight (out, in)`, with the factors `initial` at step 0."""

    @abstractmethod
    def parameter_count(self, out_features: int, in_features: int, rank: int) -> int:
        """Return the number of trained entries for one weight, in closed form."""

    def lr_ratios(self, names: Iterable[str]) -> dict[str, float]:
        """Return learning-rate multipliers by parameter name, for `names`; the multiplier of the others is 1."""
        return {}

    def build(self, weight: Tensor, *, init_scheme: InitScheme, generator: Generator, module_name: str = "") -> Delta:
        """Return the delta of `weight (out, in)` of the module `module_name`, anchored: zero at step 0.

        Raises:
            ValueError: if the rank is above `min(out, in)` or the init scheme does not fit.
        """
        self.check_fit(init_scheme)
        weight = weight.detach()
        rank = self.rank_of(weight, module_name)
        alpha = pattern_value(self.alpha_pattern, module_name, self.alpha)
        scaling = alpha / math.sqrt(rank) if self.use_rslora else alpha / rank
        initial = self.init_factors(weight, rank, scaling=scaling, init_scheme=init_scheme, generator=generator)
        delta = self.delta(weight, initial, scaling=scaling, generator=generator)
        delta.match(weight)
        delta.dropout = self.dropout
        delta.anchor()
        return delta

    def rank_of(self, weight: Tensor, module_name: str = "") -> int:
        """Return the rank for `weight (out, in)` of the module `module_name`.

        Raises:
            ValueError: if the rank is below 1, or above `min(out, in)` where the variant is `rank_limited`.
        """
        full_rank = min(weight.shape)
        rank = pattern_value(self.rank_pattern, module_name, self.rank)
        if rank == "sqrt":
            return math.isqrt(full_rank)
        if rank == "auto":
            spectral = energy_rank(singular_values(weight), self.energy_threshold)
            return max(min(spectral, self.rank_max or full_rank, full_rank), min(self.rank_min, full_rank))
        if rank < 1 or (self.rank_limited and rank > full_rank):
            where = f" at `{module_name}`" if module_name else ""
            raise ValueError(
                f"`adapter.rank` (={rank}) must be at least 1 and at most min(out, in) (={full_rank}){where}; "
                "lower it, or give this module its own with `adapter.rank_pattern`"
            )
        return rank

    def init_factors(
        self, weight: Tensor, rank: int, *, scaling: float, init_scheme: InitScheme, generator: Generator
    ) -> InitialFactors:
        """Return the initial factors `B0 (out, r)` and `A0 (r, in)`. Variants with a builtin init override this.

        Raises:
            ValueError: if both factors are zero: then neither ever gets a gradient.
        """
        initial = init_scheme.init_factors(weight, rank, scaling=scaling, generator=generator)
        if not (initial.B.any() or initial.A.any()):
            raise self.misfit(init_scheme, "with both factors at zero neither gets a gradient")
        return initial

    def check_fit(self, init_scheme: InitScheme) -> None:
        """Raise a ValueError that lists the init schemes that fit, if `init_scheme` does not."""
        if init_scheme.name == "builtin" and "builtin" not in (self.supported_inits or ()):
            raise self.misfit(init_scheme, "this variant has no builtin init")
        if self.supported_inits is not None and init_scheme.name not in self.supported_inits:
            raise self.misfit(init_scheme, "its factors have another structure")

    def misfit(self, init_scheme: InitScheme, reason: str) -> ValueError:
        """Return the error for an init scheme that does not fit; it lists those that do."""
        supported_inits = (
            ", ".join(self.supported_inits) if self.supported_inits else "any whose factors are not both zero"
        )
        return ValueError(
            f"`init_scheme` (={init_scheme.name}) does not fit `adapter` (={self.name}): {reason}; "
            f"init schemes that fit: {supported_inits}"
        )
