"""Hooks of active adapters for the training loop."""

import torch
from torch import Tensor, nn

from xlora_bench.inject.head_names import head_parameter_names
from xlora_bench.inject.query import adapted_layers


def penalty(model: nn.Module) -> Tensor | None:
    """Return the mean of the active deltas' penalties, or None if there are none."""
    terms = [layer.deltas[name].penalty() for _, layer in adapted_layers(model) for name in layer.active]
    present = [term for term in terms if term is not None]
    return torch.stack(present).mean() if present else None


def post_optimizer_step(model: nn.Module, step: int) -> None:
    """Call `post_optimizer_step` of the active deltas after optimizer step number `step`."""
    for _, layer in adapted_layers(model):
        for name in layer.active:
            layer.deltas[name].post_optimizer_step(step)


def trained_biases(model: nn.Module) -> int:
    """Return the number of trained bias entries of the base, without the head."""
    head = head_parameter_names(model)
    biases = [
        p for name, p in model.named_parameters() if name.endswith("bias") and p.requires_grad and name not in head
    ]
    return sum(bias.numel() for bias in biases)
