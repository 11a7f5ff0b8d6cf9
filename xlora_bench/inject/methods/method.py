"""Interface of the training methods: native adapters, peft methods and baselines."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from xlora_bench.adapters.init_schemes import InitScheme
from xlora_bench.inject.targets import Targets
from xlora_bench.system.options import CheckedOptions


@dataclass(frozen=True, kw_only=True)
class Method(CheckedOptions, ABC):
    """A way to adapt a model. After `apply`, exactly its trained parameters require gradients, apart from heads."""

    config_group: ClassVar[str] = "adapter"

    @property
    def resumable(self) -> bool:
        """Whether a run can resume from parameters and optimizer state. If not, a stopped run starts again."""
        return True

    @abstractmethod
    def apply(
        self, model: nn.Module, *, targets: Targets, init_scheme: InitScheme, seed: int, total_steps: int
    ) -> nn.Module:
        """Adapt `model` for a run of `total_steps` optimizer steps and return it. Random draws come from `seed`."""

    def closed_form(self, model: nn.Module) -> int | None:
        """Return the number of trained adapter entries by its closed form, or None if there is none."""
        return None

    def ranks(self, model: nn.Module) -> dict[str, int]:
        """Return the rank by module name; empty if the method has no ranks."""
        return {}

    def lr_ratios(self, model: nn.Module) -> dict[str, float]:
        """Return learning-rate multipliers by parameter name; the multiplier of the others is 1."""
        return {}

    def penalty(self, model: nn.Module) -> Tensor | None:
        """Return a regularisation term for the training loss, or None."""
        return None

    def post_optimizer_step(self, model: nn.Module, step: int) -> None:
        """Change the model after optimizer step number `step`, before the gradients are cleared."""
