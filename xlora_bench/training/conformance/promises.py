"""The promises of a variant, one function each, which raises `BrokenPromiseError` if a case does not keep it.

A promise changes the model of its case, so every promise gets a case of its own.
"""

import copy
import math
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import lightning
import torch
from safetensors.torch import load as from_bytes
from safetensors.torch import save as to_bytes
from torch import Tensor
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode

from xlora_bench import inject
from xlora_bench.adapters.dora import MagnitudeDelta
from xlora_bench.adapters.loldu import DiagonalDelta
from xlora_bench.adapters.lora import LoRA
from xlora_bench.inject.adapter_options import described
from xlora_bench.inject.methods import as_method
from xlora_bench.training.conformance.broken_promise import require, require_close, require_equal
from xlora_bench.training.conformance.case import ALPHA, RANK, Case
from xlora_bench.training.conformance.layer_kinds import transposed
from xlora_bench.training.conformance.nets import train


def starts_as_the_base(case: Case) -> None:
    """The output is the base's to the bit; the scaling is alpha / rank; the closed form counts what trains."""
    require_equal(case.net(case.x), case.base(case.x), "the output at step 0 is not the base's")
    rank = case.delta.rank if isinstance(case.adapter.rank, str) else case.adapter.rank
    expected = case.adapter.alpha / math.sqrt(rank) if case.adapter.use_rslora else case.adapter.alpha / rank
    own = isinstance(case.delta, DiagonalDelta)  # LoLDU: sigma is its own parameter, which starts at alpha / rank
    scaling = case.delta.sigma.item() if isinstance(case.delta, DiagonalDelta) else case.delta.scaling
    name = "sigma" if own else "delta.scaling"
    require(scaling == expected, f"{name} is {scaling:g} instead of {expected:g}, the scaling that `delta` was given")
    trained = sum(parameter.numel() for parameter in case.net.parameters() if parameter.requires_grad)
    counts = {
        "`parameter_count` says": as_method(case.adapter).closed_form(case.net),
        "the deltas' own parameters are": inject.parameter_count(case.net),
    }
    for says, count in counts.items():
        require(trained == count, f"{trained} entries train, {says} {count}")


def computes_the_dense_formula(case: Case) -> None:
    """The layer computes with `W + s (B A - B0 A0)`, in the layout of W; a delta that is not additive scales its rows.

    For DoRA the rows get the lengths `magnitude`; any other such delta is asked for its `row_scale`.
    """
    B0, A0 = (factor.detach().double().clone() for factor in case.delta.current_factors())
    case.perturbed()
    B, A = (factor.detach().double() for factor in case.delta.current_factors())
    plain: Any = copy.deepcopy(case.base.body["target"]).double()
    weight = plain.weight + case.kind.as_weight(case.delta.scaling * (B @ A - B0 @ A0), plain.weight)
    if not case.delta.additive:
        weight = rescaled(case, weight)
    h = fed(case)
    wide = h.double() if h.is_floating_point() else h
    expected = functional_call(plain, {"weight": weight}, (wide,))
    formula = "W + s (B A - B0 A0)" if case.delta.additive else "rows of W + s (B A - B0 A0), scaled"
    with case.autocast():
        output = case.layer(h).double()
    require_close(output, expected, case.tolerance, f"the layer does not compute with {formula}")


def fed(case: Case) -> Tensor:
    """Return an input of the target layer."""
    hidden = torch.randn(5, math.prod(case.kind.row), generator=torch.Generator().manual_seed(2))
    return case.kind.fed(hidden.to(case.device, case.dtype))


def rounds_no_more_than_lora(case: Case) -> None:
    """The update of the output has at most twice the relative error that LoRA's has in the same precision.

    With 16-bit weights it may be a quarter of their machine epsilon: the products of W and A are of their dtype. With
    wider weights it may be 16 times the epsilon, since LoRA's is only a few.
    """
    error, of_lora = update_error(case.perturbed()), lora_error(*case.about[2:], device=case.device)
    epsilon = torch.finfo(case.dtype).eps
    allowed = max(2 * of_lora, epsilon / 4 if case.dtype.itemsize < 4 else 16 * epsilon)
    require(error <= allowed, f"the update is wrong by {error:.2g} of its norm (LoRA's by {of_lora:.2g})")


def penalises_exactly(case: Case) -> None:
    """The penalty and its gradient are those of fp64 within 1e-4, near the constraint and under autocast too."""
    with torch.no_grad():
        for parameter in case.delta.parameters():
            parameter.add_(1e-3 * torch.ones_like(parameter))
    wide = copy.deepcopy(case.delta).double()
    with case.autocast():
        penalty = case.delta.penalty()
        if penalty is None:
            return
        expected = wide.penalty()
    assert expected is not None
    tolerance = {"rtol": 1e-4, "atol": 1e-7}
    require_close(penalty.double(), expected, tolerance, "the penalty is not that of fp64")
    penalty.backward()
    expected.backward()
    for (name, own), exact in zip(case.delta.named_parameters(), wide.parameters(), strict=True):
        if exact.grad is not None and own.grad is not None:
            gap = float((own.grad.double() - exact.grad).norm() / exact.grad.norm())
            require(gap < 1e-3, f"the penalty's gradient of `{name}` is wrong by {gap:.2g} of its norm")


def update_error(case: Case) -> float:
    """Return `|u - u'| / |u'|` of the update u of the output, and u' in fp64 from the same factors, input and base."""
    h, layer = fed(case), case.layer
    with torch.no_grad(), case.autocast():
        base = layer.base_output(h)
        update = layer.output_update(case.delta, h, base).double()
        wide = copy.deepcopy(layer).double()
        with torch.autocast(case.device, enabled=False):
            exact = wide.output_update(
                wide.deltas[inject.DEFAULT], h.double() if h.is_floating_point() else h, base.double()
            )
    return float((update - exact).norm() / exact.norm())


@cache
def lora_error(kind: str, precision: str, *, device: str) -> float:
    """Return the `update_error` of LoRA."""
    adapter = LoRA(rank=RANK, alpha=ALPHA)
    return update_error(Case(adapter, adapter.default_init(), kind, precision, device=device).perturbed())


def rescaled(case: Case, weight: Tensor) -> Tensor:
    """Return `weight` with its rows scaled by a delta that is not additive."""
    axis = 1 if case.kind.as_weight is transposed else 0
    rows = weight.movedim(axis, 0).flatten(1)
    if isinstance(case.delta, MagnitudeDelta):
        scale = case.delta.magnitude.detach().double() / rows.norm(dim=1)
    else:
        scale = case.delta.row_scale(case.layer.weight_matrix()).detach().double()
    return (rows * scale[:, None]).reshape(weight.movedim(axis, 0).shape).movedim(0, axis)


def forms_no_dense_update(case: Case) -> None:
    """No tensor of the weight's size is computed, forward or backward."""
    with Shapes(case.layer.weight) as shapes:
        case.perturbed().net(case.x).float().square().mean().backward()
    dense = tuple(case.layer.weight.shape)
    matrix = tuple(case.layer.weight_matrix().shape)
    formed = {dense, dense[::-1], matrix, matrix[::-1]} & shapes.seen
    require(not formed, f"a tensor as large as the weight was computed: {' and '.join(map(str, sorted(formed)))}")


def merges_and_comes_back(case: Case) -> None:
    """Merged computes the same, merging twice is once, unmerge is exact, and so is a retraction's output."""
    adapted = case.perturbed().net(case.x)
    inject.merge(case.net)
    inject.merge(case.net)
    require_close(case.net(case.x), adapted, case.tolerance, "merged and adapted differ")
    inject.unmerge(case.net)
    require_equal(case.net(case.x), adapted, "unmerging did not give the adapted output back")
    as_method(case.adapter).post_optimizer_step(case.net, 10)
    require_close(case.net(case.x), adapted, case.tolerance, "`post_optimizer_step` changed the output")


def trains_what_it_declares(case: Case) -> None:
    """After three steps the base is bit-identical, and every declared parameter has a gradient, nothing else."""
    case.net.head.requires_grad_(case.dtype != torch.float16)  # AdamW's epsilon of 1e-8 is 0 in fp16
    train(case.net, case.x, steps=3, method=case.adapter)
    for name, parameter in case.base.body.named_parameters():
        own = case.net.body.get_parameter(name.replace("target.", "target.base_layer."))
        require_equal(own, parameter, f"the frozen `{name}` of the base changed in training")
        require(own.grad is None, f"the frozen `{name}` of the base got a gradient")
    for name, parameter in case.delta.named_parameters():
        require(parameter.requires_grad, f"the delta's parameter `{name}` is frozen; make it a buffer")
        require(parameter.grad is not None, f"`{name}` got no gradient: `current_factors` does not use it")
        size = 0.0 if parameter.grad is None else parameter.grad.abs().sum().item()
        require(size > 0, f"the gradient of `{name}` is {size} after three steps: it never learns from this start")


def saves_and_loads(case: Case) -> None:
    """The state owns its storage and reloads to the bit, alone and inside a LightningModule."""
    expected = case.perturbed().net(case.x)
    state = inject.adapter_state_dict(case.net)
    for name, tensor in state.items():
        require(tensor.is_contiguous(), f"`{name}` is not contiguous in the state")
        own, kept = tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes()
        require(kept == own, f"`{name}` keeps {kept} bytes in the state, its own are {own}")
    alone = case.with_seed(6)
    inject.load_adapter_state_dict(alone.net, from_bytes(to_bytes(state)))
    require_equal(alone.net(alone.x), expected, "another output after the state was loaded")
    nested: Any = lightning.LightningModule()
    outer: Any = lightning.LightningModule()
    nested.model, outer.model = case.with_seed(7).net, case.net
    nested.load_state_dict(outer.state_dict())
    require_equal(nested.model(case.x), expected, "another output after a LightningModule's state was loaded")


def gives_the_base_back(case: Case) -> None:
    """Disabled and removed it is the base to the bit, with the base's state dict and layer type."""
    expected = case.base(case.x)
    with inject.disabled(case.perturbed().net):
        require_equal(case.net(case.x), expected, "disabled, the output is not the base's")
    require(not torch.equal(case.net(case.x), expected), "the output is the base's, although every parameter was moved")
    net: Any = inject.remove(case.net)
    require_equal(net(case.x), expected, "removed, the output is not the base's")
    kind, original = type(net.body["target"]), type(case.base.body["target"])
    require(kind is original, f"removed, the layer is a {kind.__name__} instead of {original.__name__}")
    state, before = net.state_dict(), case.base.state_dict()
    require(state.keys() == before.keys(), f"removed, other keys in the state: {sorted(state.keys() ^ before.keys())}")
    for name in state:
        require_equal(state[name], before[name], f"removed, `{name}` is not the base's")


def is_removed_merged(case: Case) -> None:
    """Removed merged it is a plain model that computes the same."""
    adapted = case.perturbed().net(case.x)
    net = inject.remove(case.net, merged=True)
    left = [name for name, _ in inject.adapted_layers(net)]
    require(not left, f"removed, {left} are adapted still")
    require_close(net(case.x), adapted, case.tolerance, "removed merged and adapted differ")


def reloads_from_its_file(case: Case) -> None:
    """Another model gets the same output and the same options from the adapter's file."""
    expected = case.perturbed().net(case.x)
    with TemporaryDirectory() as folder:
        inject.save_adapter(case.net, inject.DEFAULT, Path(folder) / "adapter.safetensors")
        net: Any = inject.load_adapter(copy.deepcopy(case.base), Path(folder) / "adapter.safetensors")
    with inject.use_adapters(net, inject.DEFAULT):
        require_equal(net(case.x), expected, "another output after the file was loaded")
    loaded = described(net.body["target"].adapter_configs[inject.DEFAULT].adapter)
    require(loaded == described(case.adapter), f"the options from the file are {loaded}")


PROMISES: list[Callable[[Case], None]] = [
    starts_as_the_base,
    computes_the_dense_formula,
    forms_no_dense_update,
    merges_and_comes_back,
    trains_what_it_declares,
    saves_and_loads,
    gives_the_base_back,
    is_removed_merged,
    rounds_no_more_than_lora,
    penalises_exactly,
]


class Shapes(TorchDispatchMode):
    """Collects the shapes of all tensors that are computed: not views of the weight, nor of its cast by autocast."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weights = [weight]
        self.seen: set[tuple[int, ...]] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call `func` and keep the shape of its result."""
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            if func is torch.ops.aten._to_copy.default and self.is_weight(args[0]):
                self.weights.append(result)
            elif not self.is_weight(result):
                self.seen.add(tuple(result.shape))
        return result

    def is_weight(self, tensor: Tensor) -> bool:
        """Return whether `tensor` is a view of the frozen weight or of a cast of it."""
        storage = tensor.untyped_storage().data_ptr()
        return any(weight.untyped_storage().data_ptr() == storage for weight in self.weights)
