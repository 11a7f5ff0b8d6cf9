"""Adapted blocks: a module with several weights, replaced as a whole by what a constructor of the user returns."""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from torch import nn

from xlora_bench.nn.layers.base import REGISTRY, AdaptedLayer, accept_plain_keys

Constructor = TypeVar("Constructor", bound=Callable[[Any], nn.Module])


def replaces(*base_types: type[nn.Module] | str) -> Callable[[Constructor], Constructor]:
    """Register the decorated class or function as the constructor of what replaces modules of `base_types`.

    It gets the module and returns one that computes the same through adapted layers on the module's own weights. Each
    of them gets the delta of an adapter, with its options. Types are given and matched as by `adapts`.
    """

    def register(constructor: Constructor) -> Constructor:
        REGISTRY.update(dict.fromkeys(base_types, partial(AdaptedBlock, constructor=constructor)))
        return constructor

    return register


class AdaptedBlock(nn.Module):
    """A frozen `base_layer`, and `adapted`, which computes it with the updates of the adapted layers in it.

    While none of them has an update, `base_layer` itself is called, so that the output is exactly that of the base.

    Raises:
        ValueError: if `constructor` does not return a module with adapted layers, all on modules in `base_layer` and
            without other parameters, or `base_layer` holds adapted layers already.
    """

    base_layer: Any

    def __init__(self, base_layer: nn.Module, *, constructor: Callable[[Any], nn.Module]) -> None:
        super().__init__()
        if layers_in(base_layer):
            raise ValueError(
                f"layers in a {type(base_layer).__name__} are adapted one by one; remove those adapters first"
            )
        self.base_layer = base_layer
        self.adapted = constructor(base_layer)
        if (reason := fault_of(base_layer, self.adapted)) is not None:
            raise ValueError(f"what replaces a {type(base_layer).__name__} {reason}")
        self.register_load_state_dict_pre_hook(accept_plain_keys)

    def __getattr__(self, name: str) -> Any:
        """Fall back to the attributes of the base layer."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("base_layer"), name)

    def layers(self) -> list[AdaptedLayer]:
        """Return the adapted layers."""
        return layers_in(self.adapted)

    def forward(self, *args: Any, **options: Any) -> Any:
        """Return the output of `adapted`, or of the base layer if there is no update."""
        plain = not any(layer.active or layer.merged_weight is not None for layer in self.layers())
        return (self.base_layer if plain else self.adapted)(*args, **options)


def layers_in(module: nn.Module) -> list[AdaptedLayer]:
    """Return the adapted layers in `module`."""
    return [inner for inner in module.modules() if isinstance(inner, AdaptedLayer)]


def fault_of(base_layer: nn.Module, adapted: object) -> str | None:
    """Return why `adapted` cannot replace `base_layer`, or None if it can."""
    layers = layers_in(adapted) if isinstance(adapted, nn.Module) else []
    if not isinstance(adapted, nn.Module) or not layers:
        return f"must be a module with adapted layers in it; its constructor returned a {type(adapted).__name__}"
    modules, parameters = set(base_layer.modules()), {id(parameter) for parameter in base_layer.parameters()}
    if any(layer.base_layer not in modules for layer in layers) or not all(
        id(parameter) in parameters for parameter in adapted.parameters()
    ):
        return "must adapt modules of the module itself, without parameters of its own: others would not be saved"
    plain = [id(layer.weight) for layer in layers if type(layer).with_weight is AdaptedLayer.with_weight]
    if len(set(plain)) < len(plain):
        return "has two adapted layers on one weight; write `with_weight` for them, which puts a merged part back"
    return None
