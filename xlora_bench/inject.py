"""Put an adapter into a model, switch it, merge it, take it out, save and load it. Nothing else edits a model."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor, nn

from xlora_bench.layers import AdaptedLayer, adapted_type
from xlora_bench.targets import Targets

if TYPE_CHECKING:
    from xlora_bench.adapters.base import Adapter, Delta
    from xlora_bench.init_schemes import InitScheme

DEFAULT = "default"


def inject(
    model: nn.Module,
    adapter: "Adapter",
    *,
    targets: Targets,
    init_scheme: "InitScheme | None" = None,
    generator: Generator | None = None,
    name: str = DEFAULT,
) -> nn.Module:
    """Freeze `model`, adapt the modules that `targets` names, and activate the new deltas.

    All deltas are built before the first module is replaced, so an error leaves the model as it was. A module that the
    model uses in several places is adapted once. Returns the model (a new root if the root itself is a target).

    Raises:
        ValueError: if a target matches nothing, is adapted under `name` already, or the variant does not fit it.
    """
    scheme = init_scheme or adapter.default_init()
    generator = generator or torch.Generator().manual_seed(0)
    places = targets.names(model)
    built: list[tuple[str, AdaptedLayer, Delta]] = []
    for place in places:
        module = model.get_submodule(place)
        layer = module if isinstance(module, AdaptedLayer) else adapted_type(module)(module)  # type: ignore[misc]
        if name in layer.deltas:
            raise ValueError(f"adapter {name!r} is at `{place}` already; remove it first, or choose another name")
        try:
            delta = adapter.build(layer.weight_matrix(), init_scheme=scheme, generator=generator, place=place)
        except ValueError as error:
            raise ValueError(f"{error} (at `{place}`)" if f"`{place}`" not in str(error) else str(error)) from error
        built.append((place, layer, delta))
    model.requires_grad_(False)
    for place, layer, delta in built:
        layer.train(model.training)
        layer.deltas[name] = delta.train(model.training)
        layer.active = (*layer.active, name)
        model = replace(model, place, layer)
    set_biases(model, adapter.bias)
    return model


def set_biases(model: nn.Module, bias: str) -> None:
    """Let no biases train, all of them, or those of the adapted layers."""
    if bias == "all":
        for path, parameter in model.named_parameters():
            if path.rsplit(".", 1)[-1] == "bias":
                parameter.requires_grad_(True)
    elif bias == "adapted":
        for _, layer in adapted_layers(model):
            if layer.bias is not None:
                layer.bias.requires_grad_(True)


def replace(model: nn.Module, place: str, new: nn.Module) -> nn.Module:
    """Put `new` wherever the module at `place` is used, and return the model."""
    old = model.get_submodule(place)
    if old is model:
        return new
    uses = [path for path, module in model.named_modules(remove_duplicate=False) if module is old]
    for path in uses:
        parent, _, child = path.rpartition(".")
        setattr(model.get_submodule(parent), child, new)
    return model


def adapted_layers(model: nn.Module) -> Iterator[tuple[str, AdaptedLayer]]:
    """Yield the adapted layers and their names, in the model's order."""
    for path, module in model.named_modules():
        if isinstance(module, AdaptedLayer):
            yield path, module


def deltas(model: nn.Module, name: str = DEFAULT) -> "dict[str, Delta]":
    """Return the deltas of the adapter called `name`, by the name of the module they adapt."""
    return {path: layer.deltas[name] for path, layer in adapted_layers(model) if name in layer.deltas}


def adapted_pairs(model: nn.Module, name: str = DEFAULT) -> "list[tuple[AdaptedLayer, Delta]]":
    """Return the layers that have the adapter called `name`, each with its delta."""
    return [(layer, layer.deltas[name]) for _, layer in adapted_layers(model) if name in layer.deltas]


def penalty(model: nn.Module) -> Tensor | None:
    """Return the mean of the active deltas' penalties, or None if none has any."""
    terms = [layer.deltas[name].penalty() for _, layer in adapted_layers(model) for name in layer.active]
    present = [term for term in terms if term is not None]
    return torch.stack(present).mean() if present else None


def after_step(model: nn.Module, step: int) -> None:
    """Tell the active deltas that optimizer step number `step` is done."""
    for _, layer in adapted_layers(model):
        for name in layer.active:
            layer.deltas[name].after_step(step)


def merge(model: nn.Module) -> None:
    """Compute with `W + sum of active updates` from now on; merging twice changes nothing."""
    for _, layer in adapted_layers(model):
        if layer.merged_weight is None:
            layer.merged_weight = layer.merged()


def unmerge(model: nn.Module) -> None:
    """Compute through the factors again; exact, since the base weight was never written."""
    for _, layer in adapted_layers(model):
        layer.merged_weight = None


def enable(model: nn.Module, name: str = DEFAULT) -> None:
    """Activate the adapter called `name` in every layer that has it.

    Raises:
        ValueError: if no layer has it.
    """
    found = False
    for _, layer in adapted_layers(model):
        if name in layer.deltas:
            found = True
            if name not in layer.active:
                layer.active = (*layer.active, name)
    if not found:
        have = sorted({key for _, layer in adapted_layers(model) for key in layer.deltas})
        raise ValueError(f"no adapter is called {name!r}; the model has: {', '.join(have) or 'none'}")


def disable(model: nn.Module) -> None:
    """Switch every delta off, so that the model is its base again, exactly."""
    unmerge(model)
    for _, layer in adapted_layers(model):
        layer.active = ()


@contextmanager
def disabled(model: nn.Module) -> Iterator[None]:
    """Switch every delta off within a `with` block; merged weights come back afterwards too."""
    before = [(layer, layer.active, layer.merged_weight) for _, layer in adapted_layers(model)]
    disable(model)
    try:
        yield
    finally:
        for layer, active, merged_weight in before:
            layer.active, layer.merged_weight = active, merged_weight


def remove(model: nn.Module, *, merged: bool = False) -> nn.Module:
    """Take all adapters out and return the plain model: the base exactly, or with the updates merged into new weights."""
    for path, layer in list(adapted_layers(model)):
        if merged:
            layer.base_layer.weight = nn.Parameter(layer.merged(), requires_grad=layer.weight.requires_grad)
        model = replace(model, path, layer.base_layer)
    return model


def adapter_state_dict(model: nn.Module, name: str = DEFAULT) -> dict[str, Tensor]:
    """Return the tensors of the adapter called `name`, keyed `<module>.<tensor>`, each with its own storage."""
    return {
        f"{path}.{key}" if path else key: tensor.detach().clone(memory_format=torch.contiguous_format)
        for path, delta in deltas(model, name).items()
        for key, tensor in delta.state_dict().items()
    }


def load_adapter_state_dict(model: nn.Module, state: Mapping[str, Tensor], name: str = DEFAULT) -> None:
    """Load what `adapter_state_dict` gave into the adapter called `name`.

    Raises:
        ValueError: if a tensor is missing, unexpected or of another shape; nothing is loaded then.
    """
    own = {
        f"{path}.{key}" if path else key: tensor
        for path, delta in deltas(model, name).items()
        for key, tensor in delta.state_dict(keep_vars=True).items()
    }
    missing, unexpected = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    if missing or unexpected:
        raise ValueError(f"the state does not fit adapter {name!r}: missing {missing[:3]}, unexpected {unexpected[:3]}")
    for key, tensor in own.items():
        if tensor.shape != state[key].shape:
            raise ValueError(
                f"`{key}` has shape {tuple(state[key].shape)} in the state, {tuple(tensor.shape)} in the model"
            )
    with torch.no_grad():
        for key, tensor in own.items():
            tensor.copy_(state[key])
    unmerge(model)


def parameter_count(model: nn.Module, name: str = DEFAULT) -> int:
    """Return the number of trained entries of the adapter called `name`."""
    return sum(p.numel() for delta in deltas(model, name).values() for p in delta.parameters() if p.requires_grad)
