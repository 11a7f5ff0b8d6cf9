"""Adapted layers: a frozen layer that applies the two factors of each of its active deltas."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

if TYPE_CHECKING:
    from xlora_bench.adapters.base import Delta

LayerType = TypeVar("LayerType", bound="type[AdaptedLayer]")
REGISTRY: dict[type[nn.Module], "type[AdaptedLayer]"] = {}


def adapts(base_type: type[nn.Module]) -> Callable[[LayerType], LayerType]:
    """Register the decorated class as the adapted layer of `base_type` and of its subclasses."""

    def register(layer_type: LayerType) -> LayerType:
        REGISTRY[base_type] = layer_type
        return layer_type

    return register


def adapted_type(base_layer: nn.Module) -> "type[AdaptedLayer] | None":
    """Return the adapted layer of the most specific registered class of `base_layer`, or None."""
    return next((REGISTRY[base] for base in type(base_layer).__mro__ if base in REGISTRY), None)


class AdaptedLayer(nn.Module, ABC):
    """A frozen `base_layer` with named deltas; the active ones are added to its output.

    The base weight is never written: `merge` keeps `W + sum of updates` beside it, so `unmerge` is exact.
    """

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.deltas = nn.ModuleDict()
        self.active: tuple[str, ...] = ()
        self.register_buffer("merged_weight", None, persistent=False)
        self.register_load_state_dict_pre_hook(accept_plain_keys)

    @property
    def weight(self) -> Tensor:
        """The frozen weight, as the base layer names it."""
        return self.base_layer.weight

    @property
    def bias(self) -> Tensor | None:
        """The base layer's bias."""
        return self.base_layer.bias

    @abstractmethod
    def weight_matrix(self) -> Tensor:
        """Return the frozen weight as an `(out, in)` matrix."""

    @abstractmethod
    def as_weight(self, matrix: Tensor) -> Tensor:
        """Return an `(out, in)` matrix in the layout of the frozen weight."""

    @abstractmethod
    def apply_delta(self, delta: "Delta", x: Tensor) -> Tensor:
        """Return the update of the output for the input `x`, through the two factors."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the base layer's output plus the updates of the active deltas."""
        if self.merged_weight is not None:
            return functional_call(self.base_layer, {"weight": self.merged_weight}, (x,))
        output = self.base_layer(x)
        for name in self.active:
            output = output + self.apply_delta(self.deltas[name], x).to(output.dtype)
        return output

    @torch.no_grad()
    def merged(self) -> Tensor:
        """Return a new weight `W + sum of the active updates`, summed in fp32 and cast once."""
        total = self.weight_matrix().float()
        for name in self.active:
            total = total + self.deltas[name].matrix()
        return self.as_weight(total).to(self.weight.dtype)


def accept_plain_keys(layer: nn.Module, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Let the state dict of the plain model load into the adapted one: `<prefix>weight` is the base layer's."""
    for name, _parameter in layer.base_layer.named_parameters():
        if prefix + name in state:
            state.setdefault(f"{prefix}base_layer.{name}", state.pop(prefix + name))
