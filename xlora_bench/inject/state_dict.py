"""State dict of one adapter."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from xlora_bench.adapters.lora import contiguous_copy
from xlora_bench.inject.merging import unmerge
from xlora_bench.inject.query import DEFAULT, adapted_blocks, adapted_pairs, adapter_heads, deltas, outside_blocks

if TYPE_CHECKING:
    from xlora_bench.adapters.delta import Delta


def adapter_state_dict(model: nn.Module, name: str = DEFAULT) -> dict[str, Tensor]:
    """Return the tensors of the adapter called `name` by key `<module>.<tensor>`, each with its own storage."""
    return {key: contiguous_copy(tensor) for key, tensor in tensors_of(deltas(model, name)).items()}


def base_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """Return the state dict of the base model while adapters are in it: its own keys, and its own tensors, not copies.

    Of heads that adapters have copies of, it has the base's. A plain model of the same class loads it (`strict=True`).
    """
    outermost = [*outside_blocks(model), *adapted_blocks(model), *adapter_heads(model)]
    outer = {f"{path}." if path else "" for path, _ in outermost}
    state = {}
    for key, tensor in model.state_dict().items():
        owner = max((prefix for prefix in outer if key.startswith(prefix)), key=len, default=None)
        if owner is None:
            state[key] = tensor
        elif key.startswith(f"{owner}base_layer."):
            state[owner + key.removeprefix(f"{owner}base_layer.")] = tensor
    return state


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
        ValueError: if a tensor is missing, unexpected, of another shape or kind, or not finite. Nothing is loaded then.
    """
    own = tensors_of(deltas(model, name))
    check_state(own, state, f"adapter {name!r}")
    copy_state(own, state)
    for layer, delta in adapted_pairs(model, name):
        delta.rebuild_buffers(layer.weight_matrix())
    unmerge(model)


def check_state(own: Mapping[str, Tensor], state: Mapping[str, Tensor], what: str) -> None:
    """Raise a ValueError unless `state` has exactly the keys and shapes of `own`, and values that `own` can have."""
    missing, unexpected = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    if missing or unexpected:
        raise ValueError(f"the state does not fit {what}: missing {missing[:3]}, unexpected {unexpected[:3]}")
    for key, tensor in own.items():
        if (reason := mismatch(tensor, state[key])) is not None:
            raise ValueError(f"`{key}` {reason}")


def mismatch(own: Tensor, given: object) -> str | None:
    """Return why the tensor `given` cannot replace `own`, None if it can. Integers are row orders: a permutation."""
    if not isinstance(given, Tensor):
        return f"is a {type(given).__name__} in the state, it must be a tensor"
    if own.shape != given.shape:
        return f"has shape {tuple(given.shape)} in the state, {tuple(own.shape)} in the model"
    if own.is_floating_point() != given.is_floating_point() or given.is_complex():
        return f"has dtype {given.dtype} in the state, {own.dtype} in the model"
    if not own.is_floating_point():
        same = torch.equal(own.flatten().sort().values.cpu(), given.flatten().sort().values.to(own.dtype).cpu())
        return None if same else "is no permutation of the rows in the state"
    return None if given.float().isfinite().all() else "has values in the state that are not finite (NaN or infinity)"


@torch.no_grad()
def copy_state(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Copy the values of `state` into the tensors of `own`."""
    for key, tensor in own.items():
        tensor.copy_(state[key])
