"""What a variant is: an `Adapter` (its options) builds a `Delta` (its trainable update) for each adapted weight."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Generator, Tensor, nn

from xlora_bench import inject
from xlora_bench.adapters.method import Method
from xlora_bench.adapters.ranks import pattern_value, resolve_rank
from xlora_bench.init_schemes import InitScheme, Kaiming, Start
from xlora_bench.targets import Targets


class Delta(nn.Module, ABC):
    """The update `s (up down - up0 down0)` of one frozen weight, seen as an `(out, in)` matrix.

    Subclasses hold the parameters and say in `current_factors` which `up (out, r)` and `down (r, in)` they make.
    `anchor` keeps the starting factors wherever their product is not zero, so that every delta is exactly zero at
    step 0 and the frozen weight is never written. It is computed as `(up - up0) down + up0 (down - down0)`: equal,
    without cancellation.
    """

    additive: ClassVar[bool] = True
    """Whether the update is `scaling * up @ down` and nothing else, so that a plain LoRA file can hold it."""

    up0: Tensor | None
    down0: Tensor | None

    def __init__(self, *, scaling: float) -> None:
        super().__init__()
        self.scaling = scaling
        self.dropout = 0.0
        self.register_buffer("up0", None)
        self.register_buffer("down0", None)

    @abstractmethod
    def current_factors(self) -> tuple[Tensor, Tensor]:
        """Return `up (out, r)` and `down (r, in)` as they stand now, without the anchor."""

    def anchor(self) -> None:
        """Subtract the product of the factors as they stand now from the update, unless it is zero."""
        with torch.enable_grad():
            up, down = self.current_factors()
        if up.any() and down.any():
            self.up0 = up.detach().clone() if up.requires_grad else None
            self.down0 = down.detach().clone() if down.requires_grad else None

    def factors(self) -> tuple[Tensor, Tensor]:
        """Return `up (out, k)` and `down (k, in)` of the unscaled update; `k = 2r` if both factors are anchored."""
        up, down = self.current_factors()
        if self.up0 is not None and self.down0 is not None:
            return torch.cat((up - self.up0, self.up0), dim=1), torch.cat((down, down - self.down0))
        if self.up0 is not None:
            return up - self.up0, down
        if self.down0 is not None:
            return up, down - self.down0
        return up, down

    @property
    def rank(self) -> int:
        """The rank r of the trained factors."""
        return self.current_factors()[1].shape[0]

    def matrix(self) -> Tensor:
        """Return the dense update `(out, in)`, scaling included; for merging and tests, not for training."""
        up, down = self.factors()
        return self.scaling * (up @ down)

    def row_scale(self, weight: Tensor) -> Tensor:
        """Return what multiplies each row of `W + update`, `(out,)`; asked for only if the delta is not `additive`."""
        return torch.ones(len(weight), device=weight.device)

    def penalty(self) -> Tensor | None:
        """Return this delta's share of a regularisation term, weight included, or None."""
        return None

    def after_step(self, step: int) -> None:
        """Act on the parameters after optimizer step number `step` (1, 2, ...), for instance a retraction."""

    def restore(self, weight: Tensor) -> None:
        """Make what state dicts leave out fit to a state that was just loaded, from the frozen `weight (out, in)`."""


@dataclass(frozen=True, kw_only=True)
class Adapter(Method):
    """The options of a variant; `delta` makes its update for one weight.

    `scaling = alpha / rank`, or `alpha / sqrt(rank)` with `use_rslora`. `rank="auto"` takes, per weight, the smallest
    rank that holds `energy_threshold` of the sum of squared singular values, clamped to `[rank_min, rank_max]`.
    `rank_pattern` and `alpha_pattern` map module names (or their dotted endings) to other values. `dropout` is on the
    adapter's input. `bias` says which biases of the model train too: none, all, or those of the adapted layers.

    Raises:
        ValueError: if an option is outside its range.
    """

    rank: int | Literal["auto"] = 8
    alpha: float = 16.0
    use_rslora: bool = False
    dropout: float = 0.0
    bias: Literal["none", "all", "adapted"] = "none"
    energy_threshold: float = 0.9
    rank_min: int = 1
    rank_max: int | None = None
    rank_pattern: Mapping[str, int] = field(default_factory=dict)
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)

    fits: ClassVar[tuple[str, ...] | None] = None
    """Names of the init schemes that fit; None if all do whose factors can learn."""
    rank_limited: ClassVar[bool] = True
    """Whether a rank above `min(out, in)` is refused."""

    def __post_init__(self) -> None:
        if self.rank != "auto" and (not isinstance(self.rank, int) or self.rank < 1):
            raise ValueError(f"`adapter.rank` (={self.rank!r}) must be a whole number of at least 1, or 'auto'")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"`adapter.dropout` (={self.dropout}) must be in [0, 1)")
        if not 0.0 < self.energy_threshold <= 1.0:
            raise ValueError(f"`adapter.energy_threshold` (={self.energy_threshold}) must be in (0, 1]")
        if not (math.isfinite(self.alpha) and self.alpha > 0):
            raise ValueError(f"`adapter.alpha` (={self.alpha}) must be a positive number")
        if self.bias not in ("none", "all", "adapted"):
            raise ValueError(f"`adapter.bias` (={self.bias!r}) must be 'none', 'all' or 'adapted'")

    @property
    def name(self) -> str:
        """The variant's name in messages."""
        return type(self).__name__.lower()

    def default_init(self) -> InitScheme:
        """Return the start that this variant takes when none is chosen."""
        return Kaiming()

    @abstractmethod
    def delta(self, weight: Tensor, start: Start, *, scaling: float, generator: Generator) -> Delta:
        """Return the update of `weight (out, in)` that starts from the factors `start`."""

    @abstractmethod
    def parameter_count(self, out_features: int, in_features: int, rank: int) -> int:
        """Return the closed form of the number of trained entries for one weight."""

    def apply(
        self, model: nn.Module, *, targets: Targets, init_scheme: InitScheme, seed: int, total_steps: int
    ) -> nn.Module:
        """Inject the variant into `model`, with random draws from `seed` alone."""
        generator = torch.Generator().manual_seed(seed)
        return inject.inject(model, self, targets=targets, init_scheme=init_scheme, generator=generator)

    def closed_form(self, model: nn.Module) -> int:
        """Return the closed form of the parameter count, summed over the adapted weights, plus the trained biases."""
        weights = [(layer.weight_matrix(), delta) for layer, delta in inject.adapted_pairs(model)]
        count = sum(self.parameter_count(len(weight), weight.shape[1], delta.rank) for weight, delta in weights)
        return count + inject.trained_biases(model)

    def ranks(self, model: nn.Module) -> dict[str, int]:
        """Return the rank at each adapted module."""
        return {place: delta.rank for place, delta in inject.deltas(model).items()}

    def penalty(self, model: nn.Module) -> Tensor | None:
        """Return the mean of the deltas' penalties."""
        return inject.penalty(model)

    def after_step(self, model: nn.Module, step: int) -> None:
        """Let every delta act on its parameters."""
        inject.after_step(model, step)

    def build(self, weight: Tensor, *, init_scheme: InitScheme, generator: Generator, place: str = "") -> Delta:
        """Return the anchored delta of `weight (out, in)`, which sits at `place` in the model.

        Raises:
            ValueError: if the rank is above `min(out, in)` or the init scheme does not fit.
        """
        self.check_fit(init_scheme)
        rank = resolve_rank(self, weight, place)
        alpha = pattern_value(self.alpha_pattern, place, self.alpha)
        scaling = alpha / math.sqrt(rank) if self.use_rslora else alpha / rank
        start = self.start(weight, rank, scaling=scaling, init_scheme=init_scheme, generator=generator)
        delta = self.delta(weight, start, scaling=scaling, generator=generator)
        delta.to(weight.device, torch.promote_types(weight.dtype, torch.float32))
        delta.dropout = self.dropout
        delta.anchor()
        return delta

    def start(
        self, weight: Tensor, rank: int, *, scaling: float, init_scheme: InitScheme, generator: Generator
    ) -> Start:
        """Return the starting factors; a variant that brings its own overrides this.

        Raises:
            ValueError: if both factors start at zero, so that neither would ever get a gradient.
        """
        start = init_scheme.start(weight, rank, scaling=scaling, generator=generator)
        if not (start.B.any() or start.A.any()):
            raise self.misfit(init_scheme, "with both factors at zero neither gets a gradient")
        return start

    def check_fit(self, init_scheme: InitScheme) -> None:
        """Raise a ValueError that says which starts fit, if `init_scheme` does not."""
        if init_scheme.name == "own" and "own" not in (self.fits or ()):
            raise self.misfit(init_scheme, "this variant has no start of its own")
        if self.fits is not None and init_scheme.name not in self.fits:
            raise self.misfit(init_scheme, "its factors have another structure")

    def misfit(self, init_scheme: InitScheme, reason: str) -> ValueError:
        """Return the error for a start that does not fit, with the ones that do."""
        fits = ", ".join(self.fits) if self.fits else "any start whose factors are not both zero"
        return ValueError(
            f"`init_scheme` (={init_scheme.name}) does not fit `adapter` (={self.name}): {reason}; "
            f"starts that fit: {fits}"
        )
