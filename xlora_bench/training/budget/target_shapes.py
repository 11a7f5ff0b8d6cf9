"""Shapes of the target weights, read from a model on the meta device; the costs of a variant follow from them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import nn

from xlora_bench.adapters.base import Adapter
from xlora_bench.adapters.init_schemes import InitScheme
from xlora_bench.adapters.patterns import pattern_value
from xlora_bench.inject.adding import blocks_at, layers_at
from xlora_bench.inject.targets import Targets

Rank = int | Literal["sqrt"]
PROBE_RANK = 2
PROBE_SIZES = (8, 16)


@dataclass(frozen=True, kw_only=True)
class TargetModule:
    """One weight `(out, in)` that gets a delta: module name, sizes, and the number of entries of its bias (0: none)."""

    module_name: str
    out_features: int
    in_features: int
    bias: int


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The factors of a delta: `width` (columns of `B` per unit of rank), and whether `B` and `A` get gradients.

    `fused`: the delta is additive and has no dropout, so that a layer may also apply it as one dense sum `W + s B A`.
    """

    width: int
    B: bool
    A: bool
    fused: bool


def target_modules_of(model: nn.Module, targets: Targets) -> list[TargetModule]:
    """Return the weights that `targets` selects, in the order of `targets.names(model)`."""
    target_modules = []
    names = targets.names(model)
    with blocks_at(model, names) as with_blocks:
        layers = [pair for name in names for pair in layers_at(with_blocks, name)]
    for module_name, layer in layers:
        out_features, in_features = layer.weight_matrix().shape
        bias = 0 if layer.bias is None else layer.bias.numel()
        target_modules.append(
            TargetModule(module_name=module_name, out_features=out_features, in_features=in_features, bias=bias)
        )
    return target_modules


def highest_rank(target_modules: list[TargetModule]) -> int:
    """Return the highest rank that fits every weight: the minimum of all `out` and `in`."""
    return min(min(target.out_features, target.in_features) for target in target_modules)


def rank_at(adapter: Adapter, target: TargetModule, rank: Rank) -> int:
    """Return the rank of one weight: that of `adapter.rank_pattern` if a pattern matches, else `rank`."""
    value = pattern_value(adapter.rank_pattern, target.module_name, rank)
    return math.isqrt(min(target.out_features, target.in_features)) if value == "sqrt" else int(value)


def shape_at(adapter: Adapter, init_scheme: InitScheme, target: TargetModule) -> Shape:
    """Return the factor shape at `target`, probed on a small weight of the same aspect (square, tall or wide).

    Raises:
        ValueError: if the variant cannot adapt such a weight, or the init scheme does not fit it.
    """
    low, high = PROBE_SIZES
    rows = high if target.out_features > target.in_features else low
    columns = high if target.in_features > target.out_features else low
    generator = torch.Generator().manual_seed(0)
    small = replace(adapter, rank=PROBE_RANK, rank_pattern={}, alpha_pattern={})
    weight = torch.randn(rows, columns, generator=generator)
    try:
        delta = small.build(weight, init_scheme=init_scheme, generator=generator, module_name=target.module_name)
    except ValueError as error:
        raise ValueError(f"{error} (for a weight of the aspect of `{target.module_name}`)") from error
    B, A = delta.factors()
    fused = delta.additive and not adapter.dropout
    return Shape(width=len(A) // PROBE_RANK, B=B.requires_grad, A=A.requires_grad, fused=fused)


def one_of_each_aspect(target_modules: Sequence[TargetModule]) -> list[TargetModule]:
    """Return one square, one tall and one wide target, if present: a variant may not support all of them."""
    aspects = {
        (target.out_features > target.in_features, target.out_features < target.in_features): target
        for target in target_modules
    }
    return list(aspects.values())
