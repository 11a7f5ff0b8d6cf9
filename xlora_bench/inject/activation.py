"""Activate adapters: one, a weighted sum, one per row of a batch, or none."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from xlora_bench.inject.query import (
    DEFAULT,
    active_weights,
    adapted_layers,
    adapter_heads,
    adapter_names,
    check_known,
    heads,
)
from xlora_bench.nn.layers import AdaptedLayer
from xlora_bench.nn.layers.adapter_dict import Route, sorted_weights
from xlora_bench.nn.layers.adapter_heads import AdapterHeads

_DISABLED: "WeakKeyDictionary[nn.Module, AdapterState]" = WeakKeyDictionary()
"""What was active in the models that are disabled."""


@dataclass(frozen=True)
class AdapterState:
    """Snapshot of the active adapters, routes, merged weights and serving heads of a model."""

    layers: tuple[tuple[AdaptedLayer, Mapping[str, float], Route | None, Tensor | None], ...]
    heads: tuple[tuple[AdapterHeads, str | None, Route | None], ...]

    @classmethod
    def of(cls, model: nn.Module) -> "AdapterState":
        """Return the snapshot of the current state of `model`."""
        return cls(
            tuple((layer, layer.active, layer.route, layer.merged_weight) for _, layer in adapted_layers(model)),
            tuple((head, head.serving, head.route) for _, head in adapter_heads(model)),
        )

    def restore(self) -> None:
        """Restore this state. Adapters that were removed in the meantime are left out."""
        for layer, active, route, merged_weight in self.layers:
            layer.active = {name: weight for name, weight in active.items() if name in layer.deltas}
            layer.route, layer.merged_weight = route, merged_weight
        for head, serving, route in self.heads:
            head.serving, head.route = (serving if serving in head.heads else None), route


class ActivationContext:
    """Runs `activate` at once. As a context manager it restores the previous state at the end; it may be nested."""

    def __init__(self, model: nn.Module, activate: Callable[[], None]) -> None:
        self.model, self.activate = model, activate
        self.before = [AdapterState.of(model)]
        activate()
        self.fresh = True

    def __enter__(self) -> nn.Module:
        if not self.fresh:
            self.before.append(AdapterState.of(self.model))
            self.activate()
        self.fresh = False
        return self.model

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.before.pop().restore()


def use_adapters(
    model: nn.Module,
    names: str | Sequence[str],
    *,
    weights: Sequence[float] | None = None,
    head: str | None = None,
) -> ActivationContext:
    """Compute with `W + sum_i w_i s_i B_i A_i` over the adapters called `names`, from now on or in a `with` block.

    The sum is taken in alphabetical order, so the result is bit-identical for any order of `names`. `weights` w_i are 1
    by default. Empty `names` give the base. The task head is that of the adapter named `head`, by default of the only
    adapter in `names` that has one. With gradient checkpointing, call `backward` inside the block.

    Raises:
        ValueError: if a name is unknown or repeated, `weights` do not fit, or several have a head and `head` is None.
    """
    chosen = [names] if isinstance(names, str) else list(names)
    weighted = checked_weights(model, chosen, weights)
    serving = checked_head(model, chosen, head)

    def activate() -> None:
        for _, layer in adapted_layers(model):
            layer.merged_weight = layer.route = None
            layer.active = {name: weight for name, weight in weighted.items() if name in layer.deltas}
        for _, named in adapter_heads(model):
            named.route, named.serving = None, serving if serving in named.heads else None

    return ActivationContext(model, activate)


def checked_weights(model: nn.Module, names: Sequence[str], weights: Sequence[float] | None) -> dict[str, float]:
    """Return the weights by name, in alphabetical order; raise a ValueError if names or weights do not fit."""
    for name in names:
        check_known(model, name)
    if len(set(names)) < len(names):
        raise ValueError(f"`names` (={names}) repeats a name; give it once, with a larger weight")
    values = [1.0] * len(names) if weights is None else [float(weight) for weight in weights]
    if len(values) != len(names) or not torch.tensor(values).isfinite().all():
        raise ValueError(f"`weights` (={weights}) must be one finite number for each of {names}")
    return sorted_weights(dict(zip(names, values, strict=True)))


def checked_head(model: nn.Module, names: Sequence[str], head: str | None) -> str | None:
    """Return the name of the adapter whose head is used, or None for the base's head."""
    if head is not None:
        check_known(model, head)
        return head
    owners = [name for name in names if heads(model, name)]
    if len(owners) > 1:
        raise ValueError(f"adapters {owners} each have a task head; say which serves, for instance head={owners[0]!r}")
    return owners[0] if owners else None


def route(model: nn.Module, names: Sequence[str | None]) -> ActivationContext:
    """Compute row i of a batch with the adapter `names[i]` and its head (None: the base), in training too.

    The output of each row is the same as with its adapter alone. The first dimension of the input of every adapted
    layer must be the batch, so packed batches (`xlora_bench.models.packed`) are refused. If the heads have different
    numbers of classes, missing logits are `-inf`. With gradient checkpointing, call `backward` inside the block.

    Raises:
        ValueError: if a name is unknown; in the forward, if the first dimension of an input is not `len(names)`.
    """
    if isinstance(names, str):
        raise ValueError(f"`names` (={names!r}) must be a list with a name, or None, for each row of the batch")
    for name in names:
        if name is not None:
            check_known(model, name)
    routes = Route(tuple(names))
    weights = sorted_weights(dict.fromkeys((name for name in names if name is not None), 1.0))

    def activate() -> None:
        for _, layer in adapted_layers(model):
            layer.merged_weight, layer.route = None, routes
            layer.active = {name: 1.0 for name in weights if name in layer.deltas}
        for _, named in adapter_heads(model):
            named.route = routes

    return ActivationContext(model, activate)


def enable(model: nn.Module, name: str | None = None) -> None:
    """Activate again what `disable` deactivated: adapters, weights, routes, merged weights and head.

    With `name`, activate that adapter with weight 1, in addition to the active ones. A model with a single adapter, or
    with one called `default`, needs no name and no `disable` before.

    Raises:
        ValueError: if there is no such adapter; without `name`, if it is not clear which one is meant.
    """
    state = _DISABLED.pop(model, None)
    if name is None and state is not None:
        state.restore()
        return
    names = adapter_names(model)
    if name is None and len(names) > 1 and DEFAULT not in names:
        raise ValueError(f"`name` must be one of {', '.join(names)}, since the model has several adapters")
    name = name or (names[0] if len(names) == 1 else DEFAULT)
    check_known(model, name)
    weights = active_weights(model) | {name: 1.0}
    use_adapters(model, list(weights), weights=list(weights.values()))


def disable(model: nn.Module) -> None:
    """Deactivate all adapters, until `enable`. The model is then exactly its base."""
    _DISABLED.setdefault(model, AdapterState.of(model))
    use_adapters(model, [])


@contextmanager
def disabled(model: nn.Module) -> Iterator[None]:
    """Deactivate all adapters within a `with` block. Restores the state afterwards, merged weights included."""
    with use_adapters(model, []):
        yield
