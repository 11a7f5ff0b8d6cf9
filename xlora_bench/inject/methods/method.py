"""What training needs of any way to adapt a model: our variants, peft's, and baselines."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor, nn

from xlora_bench.adapters.init_schemes import InitScheme
from xlora_bench.inject.targets import Targets


@dataclass(frozen=True, kw_only=True)
class Method(ABC):
    """A way to adapt a model. It leaves requiring gradients exactly what it trains, heads aside."""

    @property
    def resumable(self) -> bool:
        """Whether parameters and optimizer are all that a run goes on from; otherwise a stopped run starts anew."""
        return True

    @abstractmethod
    def apply(
        self, model: nn.Module, *, targets: Targets, init_scheme: InitScheme, seed: int, total_steps: int
    ) -> nn.Module:
        """Adapt `model` for a training run of `total_steps` optimizer steps and return it; draws come from `seed`."""

    def closed_form(self, model: nn.Module) -> int | None:
        """Return the number of trained adapter entries by formula, or None where there is none."""
        return None

    def ranks(self, model: nn.Module) -> dict[str, int]:
        """Return the rank at each adapted module, where the method has ranks."""
        return {}

    def lr_ratios(self, model: nn.Module) -> dict[str, float]:
        """Return, by parameter name, how many times the learning rate it trains at; names left out train at it."""
        return {}

    def penalty(self, model: nn.Module) -> Tensor | None:
        """Return a regularisation term for the training loss, or None."""
        return None

    def post_optimizer_step(self, model: nn.Module, step: int) -> None:  # noqa: B027 - most methods have nothing to do here
        """Act on the model after optimizer step number `step`, while the gradients are still there."""
