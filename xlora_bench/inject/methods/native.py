"""Training method of the native adapters."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from xlora_bench.adapters import Adapter
from xlora_bench.adapters.init_schemes import InitScheme
from xlora_bench.inject.adding import inject
from xlora_bench.inject.methods.method import Method
from xlora_bench.inject.query import adapted_pairs, deltas
from xlora_bench.inject.targets import Targets
from xlora_bench.inject.training_hooks import penalty, post_optimizer_step, trained_biases


@dataclass(frozen=True, kw_only=True)
class NativeMethod(Method):
    """Inject `adapter` into the model and train its deltas."""

    adapter: Adapter

    def apply(
        self, model: nn.Module, *, targets: Targets, init_scheme: InitScheme, seed: int, total_steps: int
    ) -> nn.Module:
        """Inject the adapter into `model`, with random draws from `seed` alone."""
        generator = torch.Generator().manual_seed(seed)
        return inject(model, self.adapter, targets=targets, init_scheme=init_scheme, generator=generator)

    def closed_form(self, model: nn.Module) -> int:
        """Return the sum of the closed forms over the adapted weights, plus the trained biases."""
        weights = [(layer.weight_matrix(), delta) for layer, delta in adapted_pairs(model)]
        count = sum(self.adapter.parameter_count(len(weight), weight.shape[1], delta.rank) for weight, delta in weights)
        return count + trained_biases(model)

    def ranks(self, model: nn.Module) -> dict[str, int]:
        """Return the rank by module name."""
        return {name: delta.rank for name, delta in deltas(model).items()}

    def lr_ratios(self, model: nn.Module) -> dict[str, float]:
        """Return the adapter's learning-rate multipliers by parameter name."""
        return self.adapter.lr_ratios(name for name, _ in model.named_parameters())

    def penalty(self, model: nn.Module) -> Tensor | None:
        """Return the mean of the deltas' penalties."""
        return penalty(model)

    def post_optimizer_step(self, model: nn.Module, step: int) -> None:
        """Call `post_optimizer_step` of every active delta."""
        post_optimizer_step(model, step)


def as_method(adapter: Adapter | Method) -> Method:
    """Return a native adapter wrapped as a `NativeMethod`; return a baseline or peft method unchanged."""
    return NativeMethod(adapter=adapter) if isinstance(adapter, Adapter) else adapter
