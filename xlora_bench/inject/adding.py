"""Add an adapter to a model. It is built before the first module is replaced, so an error changes nothing."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Generator, nn

from xlora_bench.adapters.base import Adapter
from xlora_bench.adapters.init_schemes import InitScheme
from xlora_bench.inject.adapter_config import AdapterConfig
from xlora_bench.inject.heads import own_heads
from xlora_bench.inject.query import (
    DEFAULT,
    adapted_blocks,
    adapted_layers,
    adapter_heads,
    adapter_names,
    replace,
)
from xlora_bench.inject.targets import Targets
from xlora_bench.nn.layers import AdaptedBlock, AdaptedLayer, adapted_type
from xlora_bench.nn.layers.adapter_dict import check_name, sorted_weights
from xlora_bench.nn.layers.adapter_heads import AdapterHeads
from xlora_bench.nn.layers.compatibility import is_block

if TYPE_CHECKING:
    from xlora_bench.adapters.delta import Delta

NewDeltas = list[tuple[str, AdaptedLayer, "Delta"]]


def inject(
    model: nn.Module,
    adapter: Adapter,
    *,
    targets: Targets,
    init_scheme: InitScheme | None = None,
    generator: Generator | None = None,
    name: str = DEFAULT,
) -> nn.Module:
    """Freeze `model`, adapt its target modules, and activate the new deltas.

    A module that the model uses in several places is adapted once. Other adapters are not changed. Returns the model,
    or a new root module if the root itself is a target.

    Raises:
        ValueError: if a target matches nothing, is adapted under `name` already, or the variant does not fit it.
    """
    check_new(model, name)
    check_options(adapter, targets, init_scheme)
    adapter_config = AdapterConfig(adapter=adapter, init_scheme=init_scheme or adapter.default_init(), targets=targets)
    model = added(model, name, adapter_config, generator)
    for _, layer in adapted_layers(model):
        if name in layer.deltas:
            layer.active = sorted_weights({**layer.active, name: 1.0})
    set_biases(model, adapter.bias)
    return model


def add_adapter(
    model: nn.Module,
    name: str,
    adapter: Adapter,
    *,
    targets: Targets,
    init_scheme: InitScheme | None = None,
    generator: Generator | None = None,
    head: Mapping[str, nn.Module] | None = None,
) -> nn.Module:
    """Add an adapter called `name` to the frozen base without activating it; `use_adapters` activates it.

    `head` maps module names to the modules that replace them while this adapter is used. By default the adapter gets a
    copy of each task head of the model. `{}` gives none; `new_head` creates new ones. Returns the model, or a new root
    module if the root itself is a target.

    Raises:
        ValueError: as `inject`, or if the name is invalid, the variant trains biases of the shared base, or `head`
            names a module that does not exist.
    """
    check_new(model, name)
    check_options(adapter, targets, init_scheme)
    if adapter.bias != "none":
        raise ValueError(
            f"`adapter.bias` (={adapter.bias!r}) trains biases of the base, which adapter {name!r} shares with others; "
            "set it to 'none', or use `inject` for a model with one adapter"
        )
    if head is not None and not (
        isinstance(head, Mapping) and all(isinstance(one, nn.Module) for one in head.values())
    ):
        raise ValueError(f"`head` (={head!r}) must be None, or map module names to modules (`new_head` makes them)")
    copies = own_heads(model) if head is None else dict(head)
    check_head(model, copies)
    adapter_config = AdapterConfig(adapter=adapter, init_scheme=init_scheme or adapter.default_init(), targets=targets)
    model = added(model, name, adapter_config, generator)
    return install_head(model, name, copies)


def check_new(model: nn.Module, name: str) -> None:
    """Raise a ValueError if `name` is invalid or already used."""
    check_name(name)
    if name in adapter_names(model):
        module_names = [path for path, layer in adapted_layers(model) if name in layer.deltas]
        raise ValueError(f"adapter {name!r} is at `{module_names[0]}` already; remove it first, or choose another name")


def check_options(adapter: object, targets: object, init_scheme: object) -> None:
    """Raise a ValueError for an option that is not an object of its class."""
    for name, value, kind, example in (
        ("adapter", adapter, Adapter, "LoRA(rank=8)"),
        ("targets", targets, Targets, "Targets(modules=['query', 'value'])"),
        ("init_scheme", init_scheme, InitScheme | None, "KaimingInit()"),
    ):
        if not isinstance(value, kind):
            raise ValueError(f"`{name}` (={value!r}) must be an object such as xlora_bench.{example}")


def check_head(model: nn.Module, head: Mapping[str, nn.Module]) -> None:
    """Raise a ValueError if `head` names a module that does not exist or that contains adapted layers."""
    known = dict(model.named_modules())
    for module_name in head:
        if module_name not in known or not module_name:
            raise ValueError(f"`head` names {module_name!r}, which is no module of the model: {', '.join(known)[:300]}")
        inside = [module for module in known[module_name].modules() if isinstance(module, AdaptedLayer)]
        if inside:
            raise ValueError(f"`head` names {module_name!r}, which holds adapted layers: a module is one or the other")


def added(model: nn.Module, name: str, adapter_config: AdapterConfig, generator: Generator | None) -> nn.Module:
    """Build the deltas of the target modules and install them; the model is unchanged after an error."""
    names = adapter_config.targets.names(model)
    blocks = [name for name in names if is_block(model.get_submodule(name))]
    if blocks and adapter_config.adapter.bias == "adapted":
        raise ValueError(f"`adapter.bias` (='adapted') is not defined for `{blocks[0]}`, which is replaced as a whole")
    with blocks_at(model, names) as whole:
        return install(whole, name, build(whole, names, adapter_config, generator), adapter_config)


@contextmanager
def blocks_at(model: nn.Module, names: Sequence[str]) -> Iterator[nn.Module]:
    """Within a `with` block, have an adapted block at each of `names` that takes one; those without deltas go again."""
    made: dict[str, AdaptedBlock] = {}
    for name in names:
        module = model.get_submodule(name)
        if is_block(module) and not isinstance(module, AdaptedBlock):
            try:
                made[name] = adapted_type(module)(module).train(model.training)  # type: ignore[misc]
            except ValueError as error:
                raise ValueError(f"{error} (at `{name}`)") from error
    for name, block in made.items():
        model = replace(model, name, block)
    try:
        yield model
    finally:
        without_empty_blocks(model)


def without_empty_blocks(model: nn.Module) -> nn.Module:
    """Put the module itself back where an adapted block has no deltas. Return the model, or its new root."""
    for path, block in list(adapted_blocks(model)):
        if not any(layer.deltas for layer in block.layers()):
            model = replace(model, path, block.base_layer)
    return model


def build(
    model: nn.Module, names: Sequence[str], adapter_config: AdapterConfig, generator: Generator | None
) -> NewDeltas:
    """Return the names, adapted layers and new deltas of the modules `names`. Does not change `model`."""
    generator = generator or torch.Generator().manual_seed(0)
    new_deltas: NewDeltas = []
    for module_name, layer in (pair for name in names for pair in layers_at(model, name)):
        try:
            delta = adapter_config.adapter.build(
                layer.weight_matrix(),
                init_scheme=adapter_config.init_scheme,
                generator=generator,
                module_name=module_name,
            )
        except ValueError as error:
            raise ValueError(
                f"{error} (at `{module_name}`)" if f"`{module_name}`" not in str(error) else str(error)
            ) from error
        new_deltas.append((module_name, layer, delta))
    return new_deltas


def layers_at(model: nn.Module, module_name: str) -> list[tuple[str, AdaptedLayer]]:
    """Return the name and adapted layer at `module_name`; of an adapted block, those in it."""
    module = model.get_submodule(module_name)
    if not isinstance(module, AdaptedBlock):
        return [(module_name, layer_at(model, module_name))]
    prefix = f"{module_name}." if module_name else ""
    return [(prefix + path, layer) for path, layer in adapted_layers(module)]


def layer_at(model: nn.Module, module_name: str) -> AdaptedLayer:
    """Return the adapted layer at `module_name`, or a new one around the plain layer."""
    module = model.get_submodule(module_name)
    if isinstance(module, AdaptedLayer):
        return module
    if is_block(module) or any(module in set(block.base_layer.modules()) for _, block in adapted_blocks(model)):
        raise ValueError(f"`{module_name}` is in a module that is replaced as a whole; `add_adapter` adapts that one")
    return adapted_type(module)(module)  # type: ignore[misc]


def install(model: nn.Module, name: str, new_deltas: NewDeltas, adapter_config: AdapterConfig) -> nn.Module:
    """Freeze the base and install the adapted layers with their new deltas."""
    freeze_base(model)
    for module_name, layer, delta in new_deltas:
        layer.train(model.training)
        layer.deltas[name] = delta.train(model.training)
        layer.adapter_configs[name] = adapter_config
        model = replace(model, module_name, layer)
    return model


def install_head(model: nn.Module, name: str, copies: Mapping[str, nn.Module]) -> nn.Module:
    """Add the head modules `copies` of the adapter called `name` to the heads of the model."""
    for module_name, module in copies.items():
        present = model.get_submodule(module_name)
        head = present if isinstance(present, AdapterHeads) else AdapterHeads(present)
        head.train(model.training)
        head.heads[name] = module.requires_grad_(True).train(model.training)
        model = replace(model, module_name, head)
    return model


def freeze_base(model: nn.Module) -> None:
    """Freeze every parameter that does not belong to an adapter."""
    owned = {
        id(parameter)
        for parts in (
            *(layer.deltas for _, layer in adapted_layers(model)),
            *(head.heads for _, head in adapter_heads(model)),
        )
        for parameter in parts.parameters()
    }
    for parameter in model.parameters():
        if id(parameter) not in owned:
            parameter.requires_grad_(False)


def set_biases(model: nn.Module, bias: str) -> None:
    """Unfreeze biases: none, all, or those of the adapted layers."""
    if bias == "all":
        for path, parameter in model.named_parameters():
            if path.rsplit(".", 1)[-1] == "bias":
                parameter.requires_grad_(True)
    elif bias == "adapted":
        for _, layer in adapted_layers(model):
            if layer.bias is not None:
                layer.bias.requires_grad_(True)
