"""Merge updates, rename adapters, and take them out."""

import torch
from torch import nn

from xlora_bench.inject.adding import check_new
from xlora_bench.inject.tree import adapted_layers, check_known, named_heads, replace


def merge(model: nn.Module) -> None:
    """Compute with `W + sum of active updates` from now on; merging twice changes nothing.

    Raises:
        ValueError: if rows are routed, or an active adapter is dropping inputs at random in training.
    """
    for path, layer in adapted_layers(model):
        dropping = [name for name in layer.active if layer.training and layer.deltas[name].dropout > 0]
        if layer.route is not None:
            raise ValueError("rows are routed to different adapters, which one merged weight cannot be; leave `route`")
        if dropping:
            raise ValueError(
                f"adapter {dropping[0]!r} at `{path}` trains with dropout, which a merged weight has none of; "
                "call model.eval() first"
            )
    for _, layer in adapted_layers(model):
        if layer.merged_weight is None:
            layer.merged_weight = layer.merged()


def unmerge(model: nn.Module) -> None:
    """Compute through the factors again; exact, since the base weight was never written."""
    for _, layer in adapted_layers(model):
        layer.merged_weight = None


def remove(model: nn.Module, *, merged: bool = False) -> nn.Module:
    """Take all adapters out and return the plain model.

    It is the base exactly; with `merged`, the active updates are in new weights and the serving head stays.
    """
    for path, layer in list(adapted_layers(model)):
        if merged:
            layer.base_layer.weight = nn.Parameter(layer.merged(), requires_grad=layer.weight.requires_grad)
        model = replace(model, path, layer.base_layer)
    for path, head in list(named_heads(model)):
        model = replace(model, path, head.of(head.serving) if merged else head.base_layer)
    return model


@torch.no_grad()
def remove_adapter(model: nn.Module, name: str) -> nn.Module:
    """Take the adapter called `name` and its head out; layers without any adapter become plain again.

    Raises:
        ValueError: if there is no such adapter.
    """
    check_known(model, name)
    unmerge(model)
    for path, layer in list(adapted_layers(model)):
        if name in layer.deltas:
            del layer.deltas[name], layer.origins[name]
            layer.active = {other: weight for other, weight in layer.active.items() if other != name}
        if not layer.deltas:
            model = replace(model, path, layer.base_layer)
    for path, head in list(named_heads(model)):
        if name in head.heads:
            del head.heads[name]
            head.serving = None if head.serving == name else head.serving
        if not head.heads:
            model = replace(model, path, head.base_layer)
    return model


def rename_adapter(model: nn.Module, old: str, new: str) -> None:
    """Give the adapter called `old` the name `new`.

    Raises:
        ValueError: if there is no adapter `old`, or `new` is taken or no name.
    """
    check_known(model, old)
    check_new(model, new)
    for _, layer in adapted_layers(model):
        if old in layer.deltas:
            layer.deltas.rename(old, new)
            layer.origins[new] = layer.origins.pop(old)
            layer.active = {new if name == old else name: weight for name, weight in layer.active.items()}
    for _, head in named_heads(model):
        if old in head.heads:
            head.heads.rename(old, new)
            head.serving = new if head.serving == old else head.serving


def requires_grad_(model: nn.Module, name: str, requires_grad: bool = True) -> None:
    """Let the adapter called `name` and its head train, or freeze them.

    Raises:
        ValueError: if there is no such adapter.
    """
    check_known(model, name)
    for _, layer in adapted_layers(model):
        if name in layer.deltas:
            layer.deltas[name].requires_grad_(requires_grad)
    for _, head in named_heads(model):
        if name in head.heads:
            head.heads[name].requires_grad_(requires_grad)
