"""Compatibility checks for modules that would silently give wrong results if adapted."""

import re

import torch
from torch import nn

from xlora_bench.nn.layers.adapted_block import AdaptedBlock
from xlora_bench.nn.layers.base import AdaptedLayer, adapted_type, registered_type

PARTS = re.compile(r"weight\w*_(?:g|v|orig)")
"""Names of the parameters from which a weight is computed."""


def base_of(module: nn.Module) -> nn.Module:
    """Return the layer inside an adapted layer or block, or the module itself."""
    return module.base_layer if isinstance(module, (AdaptedLayer, AdaptedBlock)) else module


def is_block(module: nn.Module) -> bool:
    """Return whether a constructor of the user replaces `module`, or has replaced it."""
    kind = adapted_type(base_of(module))
    return kind is not None and not isinstance(kind, type)


def incompatibility(model: nn.Module, name: str) -> str | None:
    """Return why the module called `name` in `model` cannot be adapted, or None if it can."""
    module = base_of(model.get_submodule(name))
    layer_type = adapted_type(module)
    if layer_type is None:
        return incompatibility_of_type(module)
    if isinstance(layer_type, type) and issubclass(layer_type, AdaptedLayer):
        reason = computed_weight(module) or layer_type.incompatibility(module)
    else:
        reason = next(filter(None, map(computed_weight, module.modules())), None)
    return reason or bypassed(model, name) or tied(model, name)


def computed_weight(module: nn.Module) -> str | None:
    """Return the reason if the weight of `module` is computed from other tensors in each forward, else None."""
    parts = any(PARTS.fullmatch(name) for name in module._parameters)
    if not parts and not any("weight" in name for name in getattr(module, "parametrizations", ())):
        return None
    return (
        "its weight is computed in each forward (weight_norm, spectral_norm, pruning or another parametrization); make "
        "it a plain one first, with torch.nn.utils.parametrize.remove_parametrizations(layer, 'weight') or "
        "torch.nn.utils.remove_weight_norm(layer), or leave it out"
    )


def incompatibility_of_type(module: nn.Module) -> str:
    """Return why the type of `module` has no adapted layer, and what to do about it."""
    kind = type(module).__name__
    if isinstance(module, nn.MultiheadAttention):
        return (
            "nn.MultiheadAttention computes with its packed weights, past the forward of any layer in it; write the "
            "attention with four nn.Linear (query, key, value, output) and adapt those"
        )
    if (known := registered_type(module)) is not None:
        return (
            f"{kind} has a forward of its own, so the update of a {known.__name__} may not fit it; if it does, call "
            f"adapts({kind})(<the adapted layer of {known.__name__}>), otherwise write an adapted layer for it"
        )
    return f"no adapted layer is registered for {kind}; write one and register it with @adapts({kind})"


def bypassed(model: nn.Module, name: str) -> str | None:
    """Return the reason if a module around `name` reads its weight without calling its forward, else None."""
    path = name.split(".")
    for end in range(len(path)):
        around = model.get_submodule(".".join(path[:end]))
        if isinstance(around, nn.MultiheadAttention):
            return incompatibility_of_type(around)
        if isinstance(around, nn.TransformerEncoderLayer) and torch.backends.mha.get_fastpath_enabled():
            return (
                "the fast path of nn.TransformerEncoderLayer reads its weight without calling it, so an update would "
                "be lost in evaluation; call torch.backends.mha.set_fastpath_enabled(False) first, and leave it so"
            )
    return None


def tied(model: nn.Module, name: str) -> str | None:
    """Return the reason if another module shares the weight of the module `name`, else None.

    An update of one of two tied modules would make their weights differ when it is merged.
    """
    around = model.get_submodule(name)
    own = base_of(around)
    weights = {id(weight) for weight in (own.parameters() if is_block(own) else [own.weight])}
    inside = set(around.modules())
    for other, module in model.named_modules():
        if module not in inside and not weights.isdisjoint(map(id, base_of(module)._parameters.values())):
            return (
                f"it shares its weight with `{other}`, and updating one alone would make the two differ; untie "
                f"them first (`{other}.weight = nn.Parameter({other}.weight.detach().clone())`, and "
                "tie_word_embeddings=False in the config of a Hugging Face model), or leave it out"
            )
    return None
