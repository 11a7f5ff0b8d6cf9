"""Trained state: the tensors of a model that a run saves and loads, without the frozen base."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from xlora_bench.nn.layers import AdaptedLayer
from xlora_bench.system.io import write_atomically


def trained_names(model: nn.Module) -> set[str]:
    """Return the state-dict keys of trainable parameters and of all delta tensors, fixed ones (anchors, pivots) too."""
    names = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    for path, module in model.named_modules():
        if isinstance(module, AdaptedLayer):
            prefix = f"{path}.deltas." if path else "deltas."
            names |= {prefix + key for key in module.deltas.state_dict()}
    return names


def trained_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """Return the tensors at `trained_names`, each a contiguous copy."""
    names = trained_names(model)
    state = model.state_dict()
    return {name: state[name].detach().clone(memory_format=torch.contiguous_format) for name in sorted(names)}


def load_trained_state_dict(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load the result of `trained_state_dict`.

    Raises:
        ValueError: if its keys are not exactly the `trained_names` of `model`.
    """
    names = trained_names(model)
    if names != set(state):
        raise ValueError(
            f"the saved state is of another variant: missing {sorted(names - set(state))[:3]}, "
            f"unexpected {sorted(set(state) - names)[:3]}"
        )
    model.load_state_dict(state, strict=False)


def save_trained(model: nn.Module, path: Path) -> None:
    """Write the trained tensors to `path` as safetensors, atomically."""
    write_atomically(path, save(trained_state_dict(model)))


def load_trained(model: nn.Module, path: Path) -> None:
    """Load a file of `save_trained`; raises as `load_trained_state_dict`."""
    load_trained_state_dict(model, load_file(path))
