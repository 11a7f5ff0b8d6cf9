"""Each adapter x init scheme x layer type keeps the promises of a variant or is refused with the init schemes that fit.

The pairs come from the YAML files: a new variant or start is tested the day its file appears. A new layer type is one
line in `tests/helpers/nets.py`. One test is one case; it goes through all promises, each on a model of its own.
"""

import copy
import itertools
import math
import re
from functools import cache

import lightning
import pytest
import torch
from hydra.utils import instantiate
from safetensors.torch import load as from_bytes
from safetensors.torch import save as to_bytes
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode

from tests.helpers.names import choices, configured, part
from tests.helpers.nets import KINDS, TARGETS, KindNet, Net, inputs, train, transposed
from xlora_bench import inject
from xlora_bench.adapters import Adapter
from xlora_bench.inject.methods import as_method

RANK, ALPHA = 4, 12.0  # alpha != rank, so a forgotten scaling shows
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
TOLERANCES = {"fp32": {"rtol": 1e-4, "atol": 1e-5}, "bf16": {"rtol": 2e-2, "atol": 2e-2}}
TOLERANCES["fp16"] = {"rtol": 4e-3, "atol": 4e-3}


def variant(name):
    return part("adapter", name, f"adapter.rank={RANK}", f"adapter.alpha={ALPHA}")


VARIANTS = [name for name in choices("adapter") if isinstance(part("adapter", name), Adapter)]
DISTINCT = [  # not pissa, olora, ...: lora with another start, and every start is crossed with lora already
    name for number, name in enumerate(VARIANTS) if not any(variant(name) == variant(o) for o in VARIANTS[:number])
]
PAIRS = list(itertools.product(DISTINCT, choices("init_scheme")))
CASES = [(*pair, kind, "fp32") for pair in PAIRS for kind in KINDS]
CASES += [(*pair, "linear", dtype) for pair in PAIRS for dtype in ("bf16", "fp16")]
REFUSAL = "init schemes that fit: |needs a square weight, this one is"


@cache
def base_net(kind, dtype):
    return KindNet(KINDS[kind], dtype=DTYPES[dtype]).requires_grad_(False).eval()


class Case:
    """A base model, the same model adapted, and a batch."""

    def __init__(self, adapter, scheme, kind="linear", dtype="fp32", *, seed=5):
        self.names = (adapter, scheme, kind, dtype)
        self.kind, self.dtype, self.tolerance = KINDS[kind], DTYPES[dtype], TOLERANCES[dtype]
        self.adapter, scheme = variant(adapter), part("init_scheme", scheme)
        self.base, self.net, self.x = (
            base_net(kind, dtype),
            copy.deepcopy(base_net(kind, dtype)),
            inputs(dtype=self.dtype),
        )
        self.net = as_method(self.adapter).apply(
            self.net, targets=TARGETS, init_scheme=scheme, seed=seed, total_steps=10
        )
        self.layer = self.net.body["target"]
        self.delta = self.layer.deltas["default"]

    def perturbed(self):
        """Move every trained entry away from its start."""
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for parameter in self.delta.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        return self


@cache
def refusal(adapter, scheme, kind, dtype="fp32"):
    """Return why the case is refused, or None; the model must be as it was then."""
    net = copy.deepcopy(base_net(kind, dtype)).requires_grad_(True)
    try:
        as_method(variant(adapter)).apply(
            net, targets=TARGETS, init_scheme=part("init_scheme", scheme), seed=0, total_steps=1
        )
    except ValueError as error:
        assert not any(True for _ in inject.adapted_layers(net))
        assert all(parameter.requires_grad for parameter in net.parameters())
        return str(error)
    return None


def starts_as_the_base(case):
    """The output is the base's to the bit; the scaling is alpha / rank; the closed form counts what trains."""
    assert torch.equal(case.net(case.x), case.base(case.x))
    sigma = getattr(case.delta, "sigma", None)  # LoLDU: its own parameter, which starts at alpha / rank
    scaling = ALPHA / math.sqrt(RANK) if case.adapter.use_rslora else ALPHA / RANK
    assert (case.delta.scaling if sigma is None else sigma.item()) == scaling
    trained = sum(parameter.numel() for parameter in case.net.parameters() if parameter.requires_grad)
    assert trained == as_method(case.adapter).closed_form(case.net) == inject.parameter_count(case.net)


def computes_the_dense_formula(case):
    """The layer computes with `W + s (up down - B0 A0)`, in the layout of W; DoRA gives its rows their lengths."""
    B0, A0 = (factor.detach().double() for factor in case.delta.current_factors())
    case.perturbed()
    B, A = (factor.detach().double() for factor in case.delta.current_factors())
    plain = copy.deepcopy(case.base.body["target"]).double()
    weight = plain.weight + case.kind.as_weight(case.delta.scaling * (B @ A - B0 @ A0), plain.weight)
    if hasattr(case.delta, "magnitude"):
        axis = 1 if case.kind.as_weight is transposed else 0
        rows = weight.movedim(axis, 0).flatten(1)
        rows = rows * (case.delta.magnitude.detach().double() / rows.norm(dim=1))[:, None]
        weight = rows.reshape(weight.movedim(axis, 0).shape).movedim(0, axis)
    hidden = torch.randn(5, math.prod(case.kind.row), generator=torch.Generator().manual_seed(2))
    h = case.kind.fed(hidden.to(case.dtype))
    wide = h.double() if h.is_floating_point() else h
    expected = functional_call(plain, {"weight": weight}, (wide,))
    torch.testing.assert_close(case.layer(h).double(), expected, **case.tolerance)


def forms_no_dense_update(case):
    """No tensor of the weight's size is computed, forward or backward."""
    with Shapes(case.layer.weight) as shapes:
        case.perturbed().net(case.x).float().square().mean().backward()
    dense = tuple(case.layer.weight.shape)
    matrix = tuple(case.layer.weight_matrix().shape)
    assert not {dense, dense[::-1], matrix, matrix[::-1]} & shapes.seen


def merges_and_comes_back(case):
    """Merged computes the same, merging twice is once, unmerge is exact, and so is a retraction's output."""
    adapted = case.perturbed().net(case.x)
    inject.merge(case.net)
    inject.merge(case.net)
    torch.testing.assert_close(case.net(case.x), adapted, **case.tolerance)
    inject.unmerge(case.net)
    assert torch.equal(case.net(case.x), adapted)
    as_method(case.adapter).post_optimizer_step(case.net, 10)
    torch.testing.assert_close(case.net(case.x), adapted, **case.tolerance)


def trains_what_it_declares(case):
    """After three steps the base is bit-identical, and every declared parameter has a gradient, nothing else."""
    case.net.head.requires_grad_(case.dtype != torch.float16)  # AdamW's epsilon of 1e-8 is 0 in fp16
    train(case.net, case.x, steps=3, method=case.adapter)
    for name, parameter in case.base.body.named_parameters():
        own = case.net.body.get_parameter(name.replace("target.", "target.base_layer."))
        assert torch.equal(own, parameter), name
        assert own.grad is None, name
    for name, parameter in case.delta.named_parameters():
        assert parameter.requires_grad, name
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def saves_and_loads(case):
    """The state owns its storage and reloads to the bit, alone and inside a LightningModule."""
    expected = case.perturbed().net(case.x)
    state = inject.adapter_state_dict(case.net)
    for name, tensor in state.items():
        assert tensor.is_contiguous(), name
        assert tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size(), name
    alone = Case(*case.names, seed=6)
    inject.load_adapter_state_dict(alone.net, from_bytes(to_bytes(state)))
    assert torch.equal(alone.net(alone.x), expected)
    nested, outer = lightning.LightningModule(), lightning.LightningModule()
    nested.model, outer.model = Case(*case.names, seed=7).net, case.net
    nested.load_state_dict(outer.state_dict())
    assert torch.equal(nested.model(case.x), expected)


def gives_the_base_back(case):
    """Disabled and removed it is the base to the bit, with the base's state dict and layer type."""
    expected = case.base(case.x)
    with inject.disabled(case.perturbed().net):
        assert torch.equal(case.net(case.x), expected)
    assert not torch.equal(case.net(case.x), expected)
    net = inject.remove(case.net)
    assert torch.equal(net(case.x), expected)
    assert type(net.body["target"]) is type(case.base.body["target"])
    state, before = net.state_dict(), case.base.state_dict()
    assert state.keys() == before.keys()
    assert all(torch.equal(state[name], before[name]) for name in state)


def is_removed_merged(case):
    """Removed merged it is a plain model that computes the same."""
    adapted = case.perturbed().net(case.x)
    net = inject.remove(case.net, merged=True)
    assert not any(True for _ in inject.adapted_layers(net))
    torch.testing.assert_close(net(case.x), adapted, **case.tolerance)


PROMISES = [
    starts_as_the_base,
    computes_the_dense_formula,
    forms_no_dense_update,
    merges_and_comes_back,
    trains_what_it_declares,
    saves_and_loads,
    gives_the_base_back,
    is_removed_merged,
]


class Shapes(TorchDispatchMode):
    """Remembers the shapes of all tensors that are computed (not those that are views of the weight)."""

    def __init__(self, weight):
        super().__init__()
        self.storage, self.seen = weight.untyped_storage().data_ptr(), set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.untyped_storage().data_ptr() != self.storage:
            self.seen.add(tuple(result.shape))
        return result


@pytest.mark.parametrize(("adapter", "scheme", "kind", "dtype"), CASES)
def test_case(adapter, scheme, kind, dtype):
    refused = refusal(adapter, scheme, kind, dtype)
    if refused is not None:
        assert re.search(REFUSAL, refused)
        return
    for promise in PROMISES:
        promise(Case(adapter, scheme, kind, dtype))


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_every_layer_type_takes_what_a_linear_layer_takes(pair):
    for kind in KINDS:
        refused = refusal(*pair, kind)
        if refused is None or "needs a square weight" not in refused:
            assert (refused is None) == (refusal(*pair, "linear") is None), kind
        else:
            assert pair[0] == "cholesky", kind


@pytest.mark.parametrize("scheme", choices("init_scheme"))
def test_every_start_fits_some_variant_or_says_why_it_fits_none(scheme):
    assert scheme == "zero" or any(refusal(name, scheme, "linear") is None for name in VARIANTS)


@pytest.mark.parametrize("adapter", VARIANTS)
def test_every_variant_has_a_start_that_fits(adapter):
    assert any(refusal(adapter, scheme, "linear") is None for scheme in choices("init_scheme"))


@pytest.mark.parametrize("adapter", VARIANTS)
def test_rank_above_the_full_rank_is_refused_by_name(adapter):
    method = part("adapter", adapter, "adapter.rank=25")
    if not method.rank_limited:
        pytest.skip("takes any rank")
    with pytest.raises(ValueError, match=r"`adapter.rank` \(=25\) .* min\(out, in\) \(=24\) at `body.target`"):
        as_method(method).apply(Net(24, 24), targets=TARGETS, init_scheme=method.default_init(), seed=0, total_steps=1)


@pytest.mark.parametrize("adapter", VARIANTS)
def test_yaml_brings_a_start_that_fits(adapter):
    scheme = instantiate(configured(f"adapter={adapter}").init_scheme)
    as_method(variant(adapter)).apply(Net(24, 24), targets=TARGETS, init_scheme=scheme, seed=0, total_steps=1)


@pytest.mark.parametrize("adapter", VARIANTS)
def test_yaml_of_the_class_brings_the_same_start_as_the_class(adapter):
    if type(part("adapter", adapter)).__name__.lower() == adapter.replace("_", ""):  # not pissa: lora by another name
        chosen = configured(f"adapter={adapter}").init_scheme
        assert instantiate(chosen) == part("adapter", adapter).default_init()


def test_rank_stabilised_scaling():
    method = part("adapter", "lora", "adapter.rank=4", "adapter.alpha=12", "adapter.use_rslora=true")
    net = as_method(method).apply(
        Net(24, 24), targets=TARGETS, init_scheme=method.default_init(), seed=0, total_steps=1
    )
    assert inject.deltas(net)["body.target"].scaling == 12 / math.sqrt(4)
