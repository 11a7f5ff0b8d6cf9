"""Layers whose tensors are elsewhere between forwards, by hooks of accelerate (`cpu_offload`, `device_map`)."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


def is_offloaded(module: nn.Module) -> bool:
    """Return whether a hook of accelerate acts on a call of `module`."""
    own = module.__dict__
    return "_hf_hook" in own and own["forward"] != own["_old_forward"]


@contextmanager
def loaded(layer: nn.Module) -> Iterator[None]:
    """Within a `with` block, have all tensors of `layer` on its device, and its parts without their hooks.

    accelerate loads the tensors of a module when that module is called. The deltas of an adapted layer are read and
    not called, and DoRA reads the weight of the base layer.
    """
    hooked: list[Any] = [module for module in layer.modules() if is_offloaded(module)]
    replaced = {module: module.forward for module in hooked}
    for module in hooked:
        module._hf_hook.pre_forward(module)
        module.forward = module._old_forward
    try:
        yield
    finally:
        for module, forward in replaced.items():
            module.forward = forward
            module._hf_hook.post_forward(module, None)
