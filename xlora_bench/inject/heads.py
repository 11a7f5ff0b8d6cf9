"""Task heads of named adapters."""

import copy
from collections.abc import Iterator

import torch
from torch import nn

from xlora_bench.inject.head_names import head_module_names
from xlora_bench.nn.layers.adapter_heads import AdapterHeads
from xlora_bench.runs import seeds

INIT_STD = 0.02
"""Standard deviation of new head weights if the model's config has no `initializer_range`, as in BERT."""


def own_heads(model: nn.Module) -> dict[str, nn.Module]:
    """Return copies of the model's task heads that have own parameters. A tied output layer has none."""
    module_names = head_module_names(model)
    body = model.get_submodule(str(model.base_model_prefix)) if module_names else nn.Module()
    tied = {id(parameter) for parameter in body.parameters()}
    return {
        module_name: copy_of(model, module_name)
        for module_name in module_names
        if any(id(parameter) not in tied for parameter in model.get_submodule(module_name).parameters())
    }


def copy_of(model: nn.Module, module_name: str) -> nn.Module:
    """Return a copy of the base's head at `module_name`."""
    module = model.get_submodule(module_name)
    return copy.deepcopy(module.base_layer if isinstance(module, AdapterHeads) else module)


def new_head(model: nn.Module, *, num_labels: int, seed: int) -> dict[str, nn.Module]:
    """Return new task heads like the model's own, with `num_labels` outputs, drawn from `seed` alone.

    Linear weights are `N(0, initializer_range^2)`, biases are 0; other modules are copied. Pass the result to
    `add_adapter(..., head=...)`.

    Raises:
        ValueError: if the model has no head with a linear output layer.
    """
    heads = own_heads(model)
    linears = [layer for head in heads.values() for layer in linears_of(head)]
    if not linears:
        raise ValueError(f"`model` ({type(model).__name__}) has no task head with a linear output layer")
    resize(linears[-1], num_labels)
    std = getattr(getattr(model, "config", None), "initializer_range", INIT_STD)
    generator = seeds.generator(seed, "head")
    for layer in linears:
        with torch.no_grad():
            layer.weight.copy_(std * torch.randn(layer.weight.shape, generator=generator))
            if layer.bias is not None:
                layer.bias.zero_()
    return heads


def linears_of(module: nn.Module) -> Iterator[nn.Linear]:
    """Yield the linear layers of `module` in its order."""
    return (layer for layer in module.modules() if isinstance(layer, nn.Linear))


def resize(layer: nn.Linear, out_features: int) -> None:
    """Resize `layer` to `out_features` outputs. The new weights are not initialised."""
    layer.out_features = out_features
    layer.weight = nn.Parameter(layer.weight.new_empty(out_features, layer.in_features))
    if layer.bias is not None:
        layer.bias = nn.Parameter(layer.bias.new_empty(out_features))
