"""Merge, unmerge, remove, rename and freeze adapters."""

import torch
from torch import Tensor, nn

from xlora_bench.inject.adding import check_new, without_empty_blocks
from xlora_bench.inject.query import (
    adapted_blocks,
    adapted_layers,
    adapter_heads,
    check_known,
    outside_blocks,
    replace,
)
from xlora_bench.nn.layers import AdaptedLayer


def merge(model: nn.Module, *, dequantize: bool = False) -> None:
    """Compute with merged weights `W + sum of active updates` from now on. Merging twice changes nothing.

    Raises:
        ValueError: if rows are routed, an active adapter has dropout in training mode, or a frozen weight is quantised
            and `dequantize` is False. Nothing is merged then.
    """
    for path, layer in adapted_layers(model):
        dropping = [name for name in layer.active if layer.training and layer.deltas[name].dropout > 0]
        if dropping:
            raise ValueError(
                f"adapter {dropping[0]!r} at `{path}` trains with dropout, which a merged weight has none of; "
                "call model.eval() first"
            )
    for layer, weight in [(layer, merged_weight(layer, dequantize)) for _, layer in adapted_layers(model)]:
        layer.merged_weight = weight


def merged_weight(layer: AdaptedLayer, dequantize: bool) -> Tensor:
    """Return the merged weight of `layer`, computed if it has none."""
    if layer.route is not None:
        raise ValueError("rows are routed to different adapters, which one merged weight cannot be; leave `route`")
    return layer.merged(dequantize=dequantize) if layer.merged_weight is None else layer.merged_weight


def unmerge(model: nn.Module) -> None:
    """Compute with the factors again. Exact, since the base weight was never written."""
    for _, layer in adapted_layers(model):
        layer.merged_weight = None


def remove(model: nn.Module, *, merged: bool = False, dequantize: bool = False) -> nn.Module:
    """Remove all adapters and return the plain model.

    It is exactly the base. With `merged`, new weights contain the active updates, and the serving head is kept.

    Raises:
        ValueError: with `merged`, as `merge`, except for dropout. The model is then unchanged.
    """
    layers = list(adapted_layers(model))
    weights = [merged_weight(layer, dequantize) if merged else None for _, layer in layers]
    for (path, layer), weight in zip(layers, weights, strict=True):
        model = replace(model, path, layer.base_layer if weight is None else layer.with_weight(weight))
    for path, block in list(adapted_blocks(model)):
        model = replace(model, path, block.base_layer)
    for path, head in list(adapter_heads(model)):
        model = replace(model, path, head.of(head.serving) if merged else head.base_layer)
    return model


@torch.no_grad()
def remove_adapter(model: nn.Module, name: str) -> nn.Module:
    """Remove the adapter called `name` and its head. Layers without adapters become plain layers again.

    Raises:
        ValueError: if there is no such adapter.
    """
    check_known(model, name)
    unmerge(model)
    for _, layer in adapted_layers(model):
        if name in layer.deltas:
            del layer.deltas[name], layer.adapter_configs[name]
            layer.active = {other: weight for other, weight in layer.active.items() if other != name}
    for path, layer in outside_blocks(model):
        if not layer.deltas:
            model = replace(model, path, layer.base_layer)
    model = without_empty_blocks(model)
    for path, head in list(adapter_heads(model)):
        if name in head.heads:
            del head.heads[name]
            head.serving = None if head.serving == name else head.serving
        if not head.heads:
            model = replace(model, path, head.base_layer)
    return model


def rename_adapter(model: nn.Module, old: str, new: str) -> None:
    """Rename the adapter called `old` to `new`.

    Raises:
        ValueError: if there is no adapter `old`, or `new` is invalid or already used.
    """
    check_known(model, old)
    check_new(model, new)
    for _, layer in adapted_layers(model):
        if old in layer.deltas:
            layer.deltas.rename(old, new)
            layer.adapter_configs[new] = layer.adapter_configs.pop(old)
            layer.active = {new if name == old else name: weight for name, weight in layer.active.items()}
    for _, head in adapter_heads(model):
        if old in head.heads:
            head.heads.rename(old, new)
            head.serving = new if head.serving == old else head.serving


def requires_grad_(model: nn.Module, name: str, *, requires_grad: bool = True) -> None:
    """Unfreeze the adapter called `name` and its head, or freeze them.

    Raises:
        ValueError: if there is no such adapter.
    """
    check_known(model, name)
    for _, layer in adapted_layers(model):
        if name in layer.deltas:
            layer.deltas[name].requires_grad_(requires_grad)
    for _, head in adapter_heads(model):
        if name in head.heads:
            head.heads[name].requires_grad_(requires_grad)
