"""Costs of a method on a model: trained entries, and FLOPs of one training step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from xlora_bench.adapters.base import Adapter
from xlora_bench.adapters.init_schemes import InitScheme
from xlora_bench.inject.head_names import head_parameter_names
from xlora_bench.inject.methods.method import Method
from xlora_bench.inject.targets import Targets, is_linear
from xlora_bench.nn.ops.low_rank_linear import dense_is_cheaper
from xlora_bench.training.budget.target_shapes import (
    Rank,
    Shape,
    TargetModule,
    one_of_each_aspect,
    rank_at,
    shape_at,
    target_modules_of,
)

ByRank = Callable[[Rank], int]
ModelFactory = Callable[[], nn.Module]
"""Makes a new model on the meta device; a new one each time, because a method modifies its model."""


@dataclass(frozen=True, kw_only=True)
class LayerCost:
    """One adapted weight in one step: target, factor shape, number of tokens, whether the input needs a gradient."""

    target: TargetModule
    shape: Shape
    tokens: int
    needed: bool

    def flops(self, rank: int) -> int:
        """Return the FLOPs of the factors at this rank, forward and backward, as adapted layers contract them.

        For `N` tokens and factors `B (out, k)`, `A (k, in)`. Factored: forward `2 N k (in + out)`; backward `2 N k out`
        each for the gradients of `B` and of the hidden `(N, k)`, `2 N k in` each for those of `A` and of the input,
        if needed. Dense sum `W + s B A`: `2 k in out` for the product and for the gradient of each trained factor,
        `2 N in out` for the gradient of the sum.
        """
        out, inner, width = self.target.out_features, self.target.in_features, self.shape.width * rank
        B = torch.empty(out, width, device="meta", requires_grad=self.shape.B)
        A = torch.empty(width, inner, device="meta", requires_grad=self.shape.A)
        if self.shape.fused and dense_is_cheaper(self.tokens, B, A):
            trained = self.shape.B + self.shape.A
            return 2 * out * inner * (width * (1 + trained) + (self.tokens if trained else 0))
        Bs = 1 + self.shape.B + (self.shape.A or self.needed)
        As = 1 + self.shape.A + self.needed
        return 2 * self.tokens * width * (Bs * out + As * inner)


def adapter_entries(adapter: Adapter, model: nn.Module, *, targets: Targets, init_scheme: InitScheme) -> ByRank:
    """Return the closed-form count of trained entries of a variant as a function of `adapter.rank`, head excluded."""
    target_modules = target_modules_of(model, targets)
    for target in one_of_each_aspect(target_modules):
        shape_at(adapter, init_scheme, target)
    biases = sum(bias.numel() for bias in trained_biases(adapter, model, target_modules))

    def entries(rank: Rank) -> int:
        each = (
            adapter.parameter_count(s.out_features, s.in_features, rank_at(adapter, s, rank)) for s in target_modules
        )
        return sum(each) + biases

    return entries


def adapter_flops(
    adapter: Adapter, model: nn.Module, *, targets: Targets, init_scheme: InitScheme, batch: int, length: int
) -> ByRank:
    """Return the FLOPs of a step of `(batch, length)` tokens with a variant, as a function of `adapter.rank`.

    Only matrix products count, 2 FLOPs per multiply-add: those of the frozen model with gradients from the first
    adapted layer on, as torch counts them, plus those of the factors. Work that does not grow with the number of tokens
    (DoRA's norms, the parametrization of an orthogonal factor) is not counted.

    Raises:
        ValueError: if a target is not a linear layer, or the variant cannot adapt it.
    """
    layer_costs: list[LayerCost] = []
    trained = nn.Parameter(torch.zeros((), device="meta"))
    target_modules = target_modules_of(model, targets)
    head = head_parameter_names(model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in head)
    for bias in trained_biases(adapter, model, target_modules):
        bias.requires_grad_(True)
    modules = dict(model.named_modules())
    for target in target_modules:
        layer = modules.get(target.module_name)
        if layer is None or not is_linear(layer):
            raise ValueError(
                f"`budget.flops_per_step` counts linear layers, `{target.module_name}` is none: choose others"
            )
        shape = shape_at(adapter, init_scheme, target)

        def note(
            _: nn.Module,
            inputs: tuple[Tensor, ...],
            output: Tensor,
            target: TargetModule = target,
            shape: Shape = shape,
        ) -> Tensor:
            tokens = inputs[0].numel() // target.in_features
            layer_costs.append(LayerCost(target=target, shape=shape, tokens=tokens, needed=inputs[0].requires_grad))
            return output + trained  # not a matrix product; makes gradients start here, as an adapter would

        layer.register_forward_hook(note)
    base = counted_flops(model, batch=batch, length=length)

    def flops(rank: Rank) -> int:
        return base + sum(layer_cost.flops(rank_at(adapter, layer_cost.target, rank)) for layer_cost in layer_costs)

    return flops


def other_entries(method: Method, make_model: ModelFactory, *, targets: Targets, init_scheme: InitScheme) -> int:
    """Return the trained entries of a baseline or a peft method, head excluded, counted on the meta device."""
    adapted, head = applied(method, make_model(), targets=targets, init_scheme=init_scheme)
    return sum(p.numel() for p in adapted.parameters() if p.requires_grad and id(p) not in head)


def other_flops(
    method: Method, make_model: ModelFactory, *, targets: Targets, init_scheme: InitScheme, batch: int, length: int
) -> int:
    """Return the FLOPs of a step of a baseline or a peft method, counted on the meta device."""
    adapted, _ = applied(method, make_model(), targets=targets, init_scheme=init_scheme)
    return counted_flops(adapted, batch=batch, length=length)


def counted_flops(model: nn.Module, *, batch: int, length: int) -> int:
    """Return the FLOPs of forward and backward, counted by torch's FlopCounterMode on the meta device."""
    from torch.utils.flop_counter import FlopCounterMode  # noqa: PLC0415 - only for budgets of FLOPs

    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        logits_of(model, batch=batch, length=length).sum().backward()
    return int(counter.get_total_flops())


def applied(
    method: Method, model: nn.Module, *, targets: Targets, init_scheme: InitScheme
) -> tuple[nn.Module, set[int]]:
    """Apply a baseline or a peft method on the meta device; return the model and the `id()`s of its head parameters."""
    names = head_parameter_names(model)
    head = [parameter for name, parameter in model.named_parameters() if name in names]
    try:
        with torch.device("meta"):
            adapted = method.apply(model, targets=targets, init_scheme=init_scheme, seed=0, total_steps=1000)
    except (RuntimeError, NotImplementedError) as error:
        raise ValueError(
            f"`budget`: {type(method).__name__} cannot be counted without its weights "
            f"({str(error).splitlines()[0]}); set `adapter.rank` by hand"
        ) from error
    for parameter in head:
        parameter.requires_grad_(True)
    return adapted, {id(parameter) for parameter in head}


def logits_of(model: nn.Module, *, batch: int, length: int) -> Tensor:
    """Return the logits of a batch without padding; some architectures run on the meta device only with a mask."""
    tokens = torch.zeros(batch, length, dtype=torch.long)
    try:
        output = model(input_ids=tokens)
    except RuntimeError:
        output = model(input_ids=tokens, attention_mask=torch.ones_like(tokens))
    logits: Tensor = output.logits
    return logits


def trained_biases(adapter: Adapter, model: nn.Module, target_modules: Sequence[TargetModule]) -> list[nn.Parameter]:
    """Return the biases of the base model that `adapter.bias` trains in addition to the deltas."""
    head = head_parameter_names(model)
    if adapter.bias == "all":
        return [p for name, p in model.named_parameters() if name.endswith(".bias") and name not in head]
    if adapter.bias == "adapted":
        return [model.get_parameter(f"{target.module_name}.bias") for target in target_modules if target.bias]
    return []


def head_size(model: nn.Module) -> int:
    """Return the number of entries of the head."""
    head = head_parameter_names(model)
    return sum(parameter.numel() for name, parameter in model.named_parameters() if name in head)
