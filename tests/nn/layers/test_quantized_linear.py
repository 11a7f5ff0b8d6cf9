"""A frozen linear layer in 8 or 4 bits: rounding, gradients, and every variant and init on what it computes with."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.helpers.adapted import perturbed, seeded
from tests.helpers.names import choices, part
from xlora_bench import inject
from xlora_bench.adapters import Adapter
from xlora_bench.inject.targets import Targets
from xlora_bench.nn.layers.quantized_linear import QuantizedLinear, entries

LEVELS = {"int8": 127, "int4": 7}
VARIANTS = [(name, "builtin") for name in choices("adapter") if isinstance(part("adapter", name), Adapter)]
STARTS = [("lora", name) for name in choices("init_scheme") if name not in ("builtin", "unit_diagonal", "ldu", "zero")]
PAIRS = [*VARIANTS, *STARTS, ("loldu", "ldu"), ("lu", "unit_diagonal")]
X = torch.randn(5, 96, generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=LEVELS)
def bits(request):
    return request.param


@pytest.fixture
def base(bits):
    model = seeded(lambda: nn.Sequential(nn.Linear(96, 96), nn.Tanh(), nn.Linear(96, 3)))
    return nn.Sequential(QuantizedLinear(model[0], bits), *model[1:])


def groups_of(row, bits):
    """The entries of a row that share a scale."""
    return [row] if bits == "int8" else [row[start : start + 64] for start in range(0, len(row), 64)]


@pytest.mark.parametrize("width", [7, 64, 100, 128])
def test_each_entry_is_off_by_at_most_half_a_scale(bits, width):
    linear = seeded(lambda: nn.Linear(width, 5))
    with torch.no_grad():
        linear.weight[3] = 0.0
    weight = QuantizedLinear(linear, bits).weight
    assert weight.shape == linear.weight.shape
    for exact, rounded in zip(linear.weight.tolist(), weight.tolist(), strict=True):
        for some, kept in zip(groups_of(exact, bits), groups_of(rounded, bits), strict=True):
            scale = max(map(abs, some)) / LEVELS[bits]
            assert all(abs(one - other) <= scale / 2 + 1e-7 for one, other in zip(some, kept, strict=True))
            assert len({round(one / (scale or 1.0)) for one in kept}) <= 2 * LEVELS[bits] + 1


def test_a_weight_on_the_grid_is_kept(bits):
    linear = nn.Linear(128, 3)
    integers = torch.randint(-LEVELS[bits], LEVELS[bits] + 1, (3, 128), generator=torch.Generator().manual_seed(0))
    integers[:, ::64] = LEVELS[bits]
    with torch.no_grad():
        linear.weight.copy_(0.25 * integers)
    assert torch.equal(QuantizedLinear(linear, bits).weight, linear.weight)


def test_its_bytes_and_its_entries(bits, base):
    layer = base[0]
    assert layer.codes.numel() * layer.codes.itemsize == {"int8": 96 * 96, "int4": 96 * 2 * 32}[bits]
    assert layer.scale.numel() == {"int8": 96, "int4": 96 * 2}[bits]
    assert entries(base) == 96 * 96 + 96 + 3 * 96 + 3


def test_it_computes_with_the_dequantised_weight_and_keeps_only_the_codes(base):
    layer, kept = base[0], []
    layer.bias.requires_grad_(True)
    x, same = X.clone().requires_grad_(), X.clone().requires_grad_()
    bias = layer.bias.detach().clone().requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        output = layer(x)
    expected = F.linear(same, layer.weight, bias)
    assert torch.equal(output, expected)
    assert not any(tensor.is_floating_point() and tensor.shape == (96, 96) for tensor in kept)
    (output.square().sum()).backward()
    (expected.square().sum()).backward()
    torch.testing.assert_close(x.grad, same.grad)
    torch.testing.assert_close(layer.bias.grad, bias.grad)


def test_it_runs_under_autocast_and_in_other_dtypes(base):
    x = X.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        output = base(x)
    assert output.dtype == torch.bfloat16
    output.float().sum().backward()
    plain = copy.deepcopy(base)
    plain[0].forward = lambda x: F.linear(x, plain[0].weight, plain[0].bias)
    same = X.clone().requires_grad_()
    plain(same).sum().backward()
    torch.testing.assert_close(x.grad, same.grad, rtol=5e-2, atol=1e-2)
    for dtype in (torch.bfloat16, torch.float64):
        cast = copy.deepcopy(base).to(dtype)
        assert torch.equal(cast[0].codes, base[0].codes)
        assert cast(X.to(dtype)).dtype == dtype


def on(base, adapter, scheme):
    method = part("adapter", adapter, "adapter.rank=4")
    start = method.default_init() if scheme == "builtin" else part("init_scheme", scheme)
    return inject.inject(copy.deepcopy(base), method, targets=Targets(modules=["0"]), init_scheme=start)


@pytest.mark.parametrize(("adapter", "scheme"), PAIRS)
def test_every_variant_starts_as_the_base_trains_and_leaves_the_codes_alone(base, adapter, scheme):
    model = on(base, adapter, scheme)
    assert torch.equal(model(X), base(X))
    dense = on(nn.Sequential(with_plain(base[0]), *base[1:]), adapter, scheme)
    assert inject.parameter_count(model) == inject.parameter_count(dense)
    for name, tensor in inject.adapter_state_dict(model).items():
        assert torch.equal(tensor, inject.adapter_state_dict(dense)[name])
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for step in range(10):
        optimizer.zero_grad()
        loss = (model(X) - 1.0).square().mean()
        loss.backward()
        optimizer.step()
        inject.post_optimizer_step(model, step + 1)
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    for name in ("codes", "scale"):
        assert torch.equal(getattr(model[0].base_layer, name), getattr(base[0], name))
    layer = model[0]
    full = base[0].weight + layer.update(layer.deltas["default"])
    torch.testing.assert_close(layer(X), F.linear(X, full, base[0].bias), rtol=1e-3, atol=1e-4)


def with_plain(layer):
    """A plain linear layer with the dequantised weight."""
    linear = nn.Linear(layer.in_features, layer.out_features)
    linear.weight, linear.bias = nn.Parameter(layer.weight), layer.bias
    return linear


def test_merging_refuses_or_dequantises_on_request(base):
    model = perturbed(on(base, "dora", "builtin"))
    output = model(X)
    with pytest.raises(ValueError, match="dequantize=True"):
        inject.merge(model)
    inject.merge(model, dequantize=True)
    torch.testing.assert_close(model(X), output, rtol=1e-3, atol=1e-4)
    inject.unmerge(model)
    assert torch.equal(model(X), output)
    plain = inject.remove(copy.deepcopy(model), merged=True, dequantize=True)
    assert type(plain[0]) is nn.Linear
    torch.testing.assert_close(plain(X), output, rtol=1e-3, atol=1e-4)
    removed = inject.remove(model)
    assert type(removed[0]) is QuantizedLinear
    assert torch.equal(removed(X), base(X))
