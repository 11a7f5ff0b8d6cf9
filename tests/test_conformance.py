"""Every adapter x every init scheme keeps the promises of a variant, or is refused with the starts that fit.

The pairs come from the YAML files: a new variant or start is tested the day its file appears.
"""

import copy
import itertools
import math

import lightning
import pytest
import torch
from hydra.utils import instantiate
from safetensors.torch import load as from_bytes
from safetensors.torch import save as to_bytes
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from tests.names import choices, configured, part
from tests.nets import SHAPES, TARGETS, Net, inputs, train
from xlora_bench import inject
from xlora_bench.adapters import Adapter

RANK, ALPHA = 4, 12.0  # alpha != rank, so a forgotten scaling shows
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Case:
    """A base model, the same model adapted, and a batch."""

    def __init__(self, adapter, scheme, shape="square", dtype="fp32", *, seed=5):
        self.adapter = variant(adapter)
        self.dtype = DTYPES[dtype]
        self.base = Net(*SHAPES[shape], dtype=self.dtype).requires_grad_(False).eval()
        self.x = inputs(dtype=self.dtype)
        scheme = part("init_scheme", scheme)
        self.net = copy.deepcopy(self.base)
        self.net = self.adapter.apply(self.net, targets=TARGETS, init_scheme=scheme, seed=seed, total_steps=10)
        self.layer = self.net.body["target"]
        self.delta = self.layer.deltas["default"]

    def perturb(self):
        """Move every trained entry away from its start."""
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for parameter in self.delta.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))

    @property
    def tolerance(self):
        return {"rtol": 0.02, "atol": 0.02} if self.dtype == torch.bfloat16 else {"rtol": 1e-4, "atol": 1e-5}


def variant(name):
    return part("adapter", name, f"adapter.rank={RANK}", f"adapter.alpha={ALPHA}")


def fits(adapter, scheme, shape="square"):
    """Whether the pair is accepted; a refusal must be a ValueError."""
    try:
        Case(adapter, scheme, shape)
    except ValueError:
        return False
    return True


VARIANTS = [name for name in choices("adapter") if isinstance(part("adapter", name), Adapter)]
PAIRS = list(itertools.product(VARIANTS, choices("init_scheme")))
FITTING = [pair for pair in PAIRS if fits(*pair)]
CASES = [
    (*pair, shape, dtype)
    for pair, shape in itertools.product(FITTING, SHAPES)
    if fits(*pair, shape)
    for dtype in DTYPES
]
REFUSED = [(*pair, "square") for pair in PAIRS if pair not in FITTING]
REFUSED += [(*pair, shape) for pair, shape in itertools.product(FITTING, SHAPES) if not fits(*pair, shape)]


@pytest.fixture(params=CASES, ids="-".join)
def case(request):
    return Case(*request.param)


@pytest.mark.parametrize(("adapter", "scheme", "shape"), REFUSED)
def test_refusal_says_what_would_fit_and_leaves_the_model_alone(adapter, scheme, shape):
    net = Net(*SHAPES[shape])
    with pytest.raises(ValueError, match="starts that fit: |needs a square weight, this one is"):
        variant(adapter).apply(net, targets=TARGETS, init_scheme=part("init_scheme", scheme), seed=0, total_steps=1)
    assert not any(True for _ in inject.adapted_layers(net))
    assert all(parameter.requires_grad for parameter in net.parameters())


@pytest.mark.parametrize("scheme", choices("init_scheme"))
def test_every_start_fits_some_variant_or_says_why_it_fits_none(scheme):
    assert any(pair[1] == scheme for pair in FITTING) or scheme == "zero"


@pytest.mark.parametrize("adapter", VARIANTS)
def test_every_variant_has_a_start_that_fits(adapter):
    assert any(pair[0] == adapter for pair in FITTING)


def test_output_is_unchanged_at_step_0_to_the_bit(case):
    assert torch.equal(case.net(case.x), case.base(case.x))


def test_forward_equals_the_dense_formula(case):
    up0, down0 = (factor.detach().double() for factor in case.delta.current_factors())
    case.perturb()
    up, down = (factor.detach().double() for factor in case.delta.current_factors())
    weight = case.layer.weight.double() + case.delta.scaling * (up @ down - up0 @ down0)
    h = torch.randn(5, weight.shape[1], generator=torch.Generator().manual_seed(2)).to(case.dtype)
    expected = F.linear(h.double(), weight, case.layer.bias.double())
    torch.testing.assert_close(case.layer(h).double(), expected, **case.tolerance)


def test_scaling_is_alpha_over_rank_or_its_own_parameter(case):
    if case.delta.scaling != 1.0:
        assert case.delta.scaling == ALPHA / RANK
    else:  # LoLDU: sigma starts at alpha / rank
        assert case.delta.sigma.item() == ALPHA / RANK


def test_merged_equals_adapted_and_unmerge_is_exact(case):
    case.perturb()
    adapted = case.net(case.x)
    inject.merge(case.net)
    inject.merge(case.net)
    torch.testing.assert_close(case.net(case.x), adapted, **case.tolerance)
    inject.unmerge(case.net)
    assert torch.equal(case.net(case.x), adapted)


def test_base_is_bit_identical_after_training_and_gradients_reach_what_is_declared(case):
    case.net.head.requires_grad_(True)
    train(case.net, case.x, steps=3, method=case.adapter)
    for name, parameter in case.base.body.named_parameters():
        own = case.net.body.get_parameter(name.replace("target.", "target.base_layer."))
        assert torch.equal(own, parameter), name
        assert own.grad is None, name
    for name, parameter in case.delta.named_parameters():
        assert parameter.requires_grad, name
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_output_does_not_jump_after_a_step(case):
    case.perturb()
    before = case.net(case.x)
    case.adapter.after_step(case.net, 10)
    torch.testing.assert_close(case.net(case.x), before, **case.tolerance)


def test_parameter_count_is_the_closed_form(case):
    trained = sum(parameter.numel() for parameter in case.net.parameters() if parameter.requires_grad)
    assert trained == case.adapter.closed_form(case.net) == inject.parameter_count(case.net)


def test_state_reloads_alone_and_inside_a_lightning_module(request, case):
    case.perturb()
    expected = case.net(case.x)
    alone = Case(*request.node.callspec.params["case"], seed=6)
    inject.load_adapter_state_dict(alone.net, from_bytes(to_bytes(inject.adapter_state_dict(case.net))))
    assert torch.equal(alone.net(alone.x), expected)
    nested = lightning.LightningModule()
    nested.model = Case(*request.node.callspec.params["case"], seed=7).net
    outer = lightning.LightningModule()
    outer.model = case.net
    nested.load_state_dict(outer.state_dict())
    assert torch.equal(nested.model(case.x), expected)


def test_state_is_small_and_owns_its_storage(case):
    for name, tensor in inject.adapter_state_dict(case.net).items():
        assert tensor.is_contiguous(), name
        assert tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size(), name


def test_disable_and_remove_give_the_base_back_exactly(case):
    case.perturb()
    expected = case.base(case.x)
    with inject.disabled(case.net):
        assert torch.equal(case.net(case.x), expected)
    assert not torch.equal(case.net(case.x), expected)
    net = inject.remove(case.net)
    assert torch.equal(net(case.x), expected)
    assert type(net.body["target"]) is nn.Linear
    assert {name: tensor.tolist() for name, tensor in net.state_dict().items()} == {
        name: tensor.tolist() for name, tensor in case.base.state_dict().items()
    }


def test_remove_merged_leaves_a_plain_model_that_computes_the_same(case):
    case.perturb()
    adapted = case.net(case.x)
    net = inject.remove(case.net, merged=True)
    assert not any(True for _ in inject.adapted_layers(net))
    torch.testing.assert_close(net(case.x), adapted, **case.tolerance)


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


def test_no_dense_update_is_formed_in_training(case):
    case.perturb()
    with Shapes(case.layer.weight) as shapes:
        case.net(case.x).float().square().mean().backward()
    out_features, in_features = case.layer.weight.shape
    assert not {(out_features, in_features), (in_features, out_features)} & shapes.seen


@pytest.mark.parametrize("adapter", VARIANTS)
def test_rank_above_the_full_rank_is_refused_by_name(adapter):
    method = part("adapter", adapter, "adapter.rank=25")
    with pytest.raises(ValueError, match=r"`adapter.rank` \(=25\) .* min\(out, in\) \(=24\) at `body.target`"):
        method.apply(Net(24, 24), targets=TARGETS, init_scheme=method.default_init(), seed=0, total_steps=1)


@pytest.mark.parametrize("adapter", VARIANTS)
def test_yaml_brings_the_same_start_as_the_class(adapter):
    chosen = configured(f"adapter={adapter}").init_scheme
    assert instantiate(chosen) == part("adapter", adapter).default_init()


def test_rank_stabilised_scaling():
    method = part("adapter", "lora", "adapter.rank=4", "adapter.alpha=12", "adapter.use_rslora=true")
    net = method.apply(Net(24, 24), targets=TARGETS, init_scheme=method.default_init(), seed=0, total_steps=1)
    assert inject.deltas(net)["body.target"].scaling == 12 / math.sqrt(4)
