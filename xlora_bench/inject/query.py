"""Queries: the adapted layers, deltas, heads and parameters of a model."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeVar

from torch import nn

from xlora_bench.nn.layers import AdaptedBlock, AdaptedLayer
from xlora_bench.nn.layers.adapter_heads import AdapterHeads

if TYPE_CHECKING:
    from xlora_bench.adapters.delta import Delta

DEFAULT = "default"
ModuleKind = TypeVar("ModuleKind", bound=nn.Module)


def modules_of_kind(model: nn.Module, kind: type[ModuleKind]) -> Iterator[tuple[str, ModuleKind]]:
    """Yield names and modules of type `kind`, in the model's order."""
    for path, module in model.named_modules():
        if isinstance(module, kind):
            yield path, module


def adapted_layers(model: nn.Module) -> Iterator[tuple[str, AdaptedLayer]]:
    """Yield names and adapted layers, in the model's order."""
    return modules_of_kind(model, AdaptedLayer)  # type: ignore[type-abstract]


def adapted_blocks(model: nn.Module) -> Iterator[tuple[str, AdaptedBlock]]:
    """Yield names and adapted blocks, in the model's order."""
    return modules_of_kind(model, AdaptedBlock)


def outside_blocks(model: nn.Module) -> list[tuple[str, AdaptedLayer]]:
    """Return names and adapted layers, without those in adapted blocks."""
    inside = {layer for _, block in adapted_blocks(model) for layer in block.layers()}
    return [(path, layer) for path, layer in adapted_layers(model) if layer not in inside]


def adapter_heads(model: nn.Module) -> Iterator[tuple[str, AdapterHeads]]:
    """Yield names and heads of which adapters have copies."""
    return modules_of_kind(model, AdapterHeads)


def deltas(model: nn.Module, name: str = DEFAULT) -> "dict[str, Delta]":
    """Return the deltas of the adapter called `name`, by module name."""
    return {path: layer.deltas[name] for path, layer in adapted_layers(model) if name in layer.deltas}


def heads(model: nn.Module, name: str = DEFAULT) -> dict[str, nn.Module]:
    """Return the head modules of the adapter called `name`, by the name of the module that they replace."""
    return {path: head.heads[name] for path, head in adapter_heads(model) if name in head.heads}


def adapted_pairs(model: nn.Module, name: str = DEFAULT) -> "list[tuple[AdaptedLayer, Delta]]":
    """Return the layers that have the adapter called `name`, each with its delta."""
    return [(layer, layer.deltas[name]) for _, layer in adapted_layers(model) if name in layer.deltas]


def adapter_names(model: nn.Module) -> list[str]:
    """Return the names of the model's adapters, sorted."""
    return sorted({name for _, layer in adapted_layers(model) for name in layer.deltas})


def active_weights(model: nn.Module) -> dict[str, float]:
    """Return the active adapters and their weights, by name."""
    return {name: weight for _, layer in adapted_layers(model) for name, weight in layer.active.items()}


def is_routed(model: nn.Module) -> bool:
    """Return whether the rows of a batch are routed to adapters."""
    return any(layer.route is not None for _, layer in adapted_layers(model))


def check_known(model: nn.Module, name: str) -> None:
    """Raise a ValueError that lists the adapters if none is called `name`."""
    names = adapter_names(model)
    if name not in names:
        raise ValueError(f"no adapter is called {name!r}; the model has: {', '.join(names) or 'none'}")


def adapter_parameters(model: nn.Module, name: str = DEFAULT) -> list[nn.Parameter]:
    """Return the parameters of the adapter called `name`, for its own optimizer. Those of its head are last.

    Raises:
        ValueError: if there is no such adapter.
    """
    check_known(model, name)
    parts = [*deltas(model, name).values(), *heads(model, name).values()]
    return [parameter for part in parts for parameter in part.parameters()]


def parameter_count(model: nn.Module, name: str = DEFAULT) -> int:
    """Return the number of trained entries of the deltas of the adapter called `name`."""
    return sum(p.numel() for delta in deltas(model, name).values() for p in delta.parameters() if p.requires_grad)


def replace(model: nn.Module, module_name: str, new: nn.Module) -> nn.Module:
    """Replace the module at `module_name` by `new`, everywhere it is used. Return the model, or `new` for the root."""
    old = model.get_submodule(module_name)
    if old is model:
        return new
    uses = [path for path, module in model.named_modules(remove_duplicate=False) if module is old]
    for path in uses:
        parent, _, child = path.rpartition(".")
        setattr(model.get_submodule(parent), child, new)
    return model
