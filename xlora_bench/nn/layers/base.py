"""Base class and registry of adapted layers: a frozen layer plus the updates of its active deltas."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from xlora_bench.adapters.decompositions.factorizations import at_least_fp32
from xlora_bench.nn.layers.adapter_dict import AdapterDict, Route
from xlora_bench.nn.layers.offloaded import is_offloaded, loaded
from xlora_bench.nn.layers.quantized import dequantized, is_quantized

if TYPE_CHECKING:
    from xlora_bench.adapters.delta import Delta

LayerType = TypeVar("LayerType", bound="type[AdaptedLayer]")
REGISTRY: dict[type[nn.Module] | str, Callable[[Any], Any]] = {}
"""Per type, what makes its adapted layer (a class) or its adapted block (see `replaces`) from a module."""


def adapts(*base_types: type[nn.Module] | str) -> Callable[[LayerType], LayerType]:
    """Register the decorated class as the adapted layer of `base_types` and of their subclasses.

    A type may be named by its path (`package.module.Type`), so that its package is not imported. A subclass with its
    own forward must be registered itself, since the update may not fit what it returns. The layer is handed to the
    constructor of the decorated class; modules inside it are not adapted by themselves.

    Raises:
        TypeError: if the decorated class is no `AdaptedLayer`, or lacks one of its methods.
    """

    def register(layer_type: LayerType) -> LayerType:
        missing = sorted(getattr(layer_type, "__abstractmethods__", ()))
        if not (isinstance(layer_type, type) and issubclass(layer_type, AdaptedLayer)) or missing:
            lacks = f"it lacks {', '.join(missing)}" if missing else "it is derived from another class"
            raise TypeError(f"`{layer_type.__name__}` must be an AdaptedLayer with all of its methods; {lacks}")
        REGISTRY.update(dict.fromkeys(base_types, layer_type))
        return layer_type

    return register


def registered_type(base_layer: nn.Module) -> type[nn.Module] | None:
    """Return the most specific registered class of `base_layer`, or None."""
    return next((base for base in type(base_layer).__mro__ if base in REGISTRY or path_of(base) in REGISTRY), None)


def adapted_type(base_layer: nn.Module) -> Callable[[Any], Any] | None:
    """Return what makes the adapted layer or block of `base_layer`; None if nothing is registered for its forward."""
    base = registered_type(base_layer)
    if base is None or type(base_layer).forward is not base.forward:
        return None
    return REGISTRY[base] if base in REGISTRY else REGISTRY[path_of(base)]


def path_of(base: type) -> str:
    """Return the path `package.module.Type` of the class `base`."""
    return f"{base.__module__}.{base.__qualname__}"


class AdaptedLayer(nn.Module, ABC):
    """A frozen `base_layer` with named deltas. The weighted sum of the active updates is added to its output.

    With a `route`, each row of the batch gets only the update of its own adapter. The base weight is never written:
    `merge` stores `W + sum of updates` in `merged_weight`, so `unmerge` is exact.
    """

    base_layer: Any
    merged_weight: Tensor | None

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.deltas = AdapterDict()
        self.adapter_configs: dict[str, Any] = {}
        self.active: Mapping[str, float] = {}
        self.route: Route | None = None
        self.register_buffer("merged_weight", None, persistent=False)
        self.register_load_state_dict_pre_hook(accept_plain_keys)
        self.register_load_state_dict_post_hook(rebuild_all_buffers)

    def __getattr__(self, name: str) -> Any:
        """Fall back to the attributes of the base layer, such as `in_features`."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("base_layer"), name)

    @property
    def weight(self) -> Tensor:
        """The frozen weight in the layout of the base layer."""
        return self.base_layer.weight

    @property
    def bias(self) -> Tensor | None:
        """The base layer's bias."""
        return getattr(self.base_layer, "bias", None)

    @classmethod
    def incompatibility(cls, base_layer: nn.Module) -> str | None:
        """Return why `base_layer` cannot be adapted with its options, or None if it can."""
        return None

    @property
    def is_quantized(self) -> bool:
        """Whether the frozen weight is quantised."""
        return is_quantized(self.weight)

    def dense_weight(self) -> Tensor:
        """Return the frozen weight, dequantised if it is quantised."""
        return dequantized(self.weight)

    @abstractmethod
    def weight_matrix(self) -> Tensor:
        """Return the frozen weight as an `(out, in)` matrix."""

    @abstractmethod
    def as_weight(self, matrix: Tensor) -> Tensor:
        """Return an `(out, in)` matrix in the layout of the frozen weight."""

    @abstractmethod
    def apply_delta(self, delta: "Delta", x: Tensor) -> Tensor:
        """Return the update of the output, `s B A x`, computed through the two factors."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the base layer's output plus the updates of the active deltas."""
        if is_offloaded(self.base_layer):
            with loaded(self):
                return self.forward(x)
        if self.merged_weight is not None:
            return self.merged_output(x, self.merged_weight)
        base = output = self.base_output(x)
        if self.route is not None:
            return self.routed(x, output)
        for name, weight in self.active.items():
            update = self.output_update(self.deltas[name], x, base).to(output.dtype)
            output = output + (update if weight == 1.0 else weight * update)
        return output

    def output_update(self, delta: "Delta", x: Tensor, output: Tensor) -> Tensor:
        """Return what `delta` adds to the base layer's `output` for `x`.

        For an additive delta this is `U x` with the update U. Else, with the row scale g, `(g - 1) W x + g U x`.
        """
        update = self.apply_delta(delta, x)
        if delta.additive:
            return update
        scale = self.per_row(delta.row_scale(self.weight_matrix()))
        plain = output if self.bias is None else output - self.per_row(self.bias)
        return (scale - 1) * plain + scale * update

    def per_row(self, values: Tensor) -> Tensor:
        """Return `values (out,)`, one per row of the weight matrix, in a shape that broadcasts to the output."""
        return values

    def base_output(self, x: Tensor) -> Tensor:
        """Return the output of the frozen layer for `x`."""
        return self.base_layer(x)

    def merged_output(self, x: Tensor, weight: Tensor) -> Tensor:
        """Return the output of the base layer for `x` with the merged `weight`."""
        return functional_call(self.base_layer, {"weight": weight}, (x,))

    def routed(self, x: Tensor, output: Tensor) -> Tensor:
        """Return `output` with the update of each row's own adapter added to that row."""
        if not self.active:
            return output
        for name, rows in self.route.rows(x).items():  # type: ignore[union-attr]
            if name is not None and name in self.active:
                update = self.output_update(self.deltas[name], x[rows], output[rows])
                output = output.index_add(0, rows, update.to(output.dtype))
        return output

    def update(self, delta: "Delta") -> Tensor:
        """Return the dense update `(out, in)` that equals `output_update`; for merging, not for training."""
        if delta.additive:
            return delta.matrix()
        weight = at_least_fp32(self.weight_matrix())
        return delta.row_scale(weight)[:, None] * (weight + delta.matrix()) - weight

    @torch.no_grad()
    def merged(self, *, dequantize: bool = False) -> Tensor:
        """Return a new weight `W + sum of the active updates`, summed in fp32 or fp64, then cast once.

        Raises:
            ValueError: if the frozen weight is quantised and `dequantize` is False.
        """
        if self.is_quantized and not dequantize:
            raise ValueError(
                "the base weight is quantised, and rounding the merged weight would lose the update; merge with "
                "dequantize=True (the merged weight then takes the memory of a plain one), or leave it unmerged"
            )
        total = at_least_fp32(self.weight_matrix())
        for name, weight in self.active.items():
            total = total + weight * self.update(self.deltas[name])
        return self.as_weight(total).to(self.weight.dtype)

    def with_weight(self, weight: Tensor) -> nn.Module:
        """Return the base layer with `weight` in place of its own; the frozen tensor itself is not written."""
        self.base_layer.weight = nn.Parameter(weight, requires_grad=self.weight.requires_grad)
        return self.base_layer


def accept_plain_keys(layer: Any, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Map the keys of a plain model's state dict: `<prefix>weight` becomes `<prefix>base_layer.weight`."""
    for name, _tensor in (*layer.base_layer.named_parameters(), *layer.base_layer.named_buffers()):
        if prefix + name in state:
            state.setdefault(f"{prefix}base_layer.{name}", state.pop(prefix + name))


def rebuild_all_buffers(layer: AdaptedLayer, *_: object) -> None:
    """After a state dict was loaded: drop the merged weight and recompute the deltas' non-persistent buffers."""
    layer.merged_weight = None
    for delta in layer.deltas.values():
        delta.rebuild_buffers(layer.weight_matrix())  # type: ignore[operator]
