"""What a run has to keep of a model: everything that trains, and nothing of the frozen base."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from xlora_bench.nn.layers import AdaptedLayer


def trained_names(model: nn.Module) -> set[str]:
    """Return the state-dict keys of what requires gradients and of the tensors that deltas keep (anchors, pivots)."""
    names = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    for path, module in model.named_modules():
        if isinstance(module, AdaptedLayer):
            prefix = f"{path}.deltas." if path else "deltas."
            names |= {prefix + key for key in module.deltas.state_dict()}
    return names


def trained_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """Return those tensors, each with its own storage."""
    names = trained_names(model)
    state = model.state_dict()
    return {name: state[name].detach().clone(memory_format=torch.contiguous_format) for name in sorted(names)}


def load_trained_state_dict(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load what `trained_state_dict` gave.

    Raises:
        ValueError: if the state does not hold exactly what trains here.
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

    temporary = path.with_suffix(".tmp")
    save_file(trained_state_dict(model), temporary)
    temporary.replace(path)


def load_trained(model: nn.Module, path: Path) -> None:
    """Load what `save_trained` wrote."""

    load_trained_state_dict(model, load_file(path))
