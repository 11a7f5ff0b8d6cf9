"""State dict of one adapter."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from xlora_bench.adapters.lora import contiguous_copy
from xlora_bench.inject.merging import unmerge
from xlora_bench.inject.query import DEFAULT, adapted_pairs, deltas

if TYPE_CHECKING:
    from xlora_bench.adapters.delta import Delta


def adapter_state_dict(model: nn.Module, name: str = DEFAULT) -> dict[str, Tensor]:
    """Return the tensors of the adapter called `name` by key `<module>.<tensor>`, each with its own storage."""
    return {key: contiguous_copy(tensor) for key, tensor in tensors_of(deltas(model, name)).items()}


def tensors_of(modules: "Mapping[str, Delta] | Mapping[str, nn.Module]", separator: str = ".") -> dict[str, Tensor]:
    """Return the tensors of `modules` by key `<module><separator><tensor>`. They share the modules' storage."""
    return {
        f"{path}{separator}{key}" if path else key: tensor
        for path, module in modules.items()
        for key, tensor in module.state_dict(keep_vars=True).items()
    }


def load_adapter_state_dict(model: nn.Module, state: Mapping[str, Tensor], name: str = DEFAULT) -> None:
    """Load a state dict of `adapter_state_dict` into the adapter called `name`.

    Raises:
        ValueError: if a tensor is missing, unexpected or has another shape. Nothing is loaded then.
    """
    own = tensors_of(deltas(model, name))
    check_state(own, state, f"adapter {name!r}")
    copy_state(own, state)
    for layer, delta in adapted_pairs(model, name):
        delta.rebuild_buffers(layer.weight_matrix())
    unmerge(model)


def check_state(own: Mapping[str, Tensor], state: Mapping[str, Tensor], what: str) -> None:
    """Raise a ValueError unless `state` has exactly the keys and shapes of `own`."""
    missing, unexpected = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    if missing or unexpected:
        raise ValueError(f"the state does not fit {what}: missing {missing[:3]}, unexpected {unexpected[:3]}")
    for key, tensor in own.items():
        if tensor.shape != state[key].shape:
            raise ValueError(
                f"`{key}` has shape {tuple(state[key].shape)} in the state, {tuple(tensor.shape)} in the model"
            )


@torch.no_grad()
def copy_state(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Copy the values of `state` into the tensors of `own`."""
    for key, tensor in own.items():
        tensor.copy_(state[key])
