"""The tensors of a delta keep their precision, and its methods ignore autocast."""

import pytest
import torch
from torch import nn

from tests.helpers.names import part
from xlora_bench import inject
from xlora_bench.adapters import DoRA, LoLDU, LoRA
from xlora_bench.inject.targets import Targets


def adapted(adapter):
    return inject.inject(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 2)), adapter, targets=Targets(modules=["0"]))


def dtypes(net):
    (delta,) = inject.deltas(net).values()
    return {tensor.dtype for tensor in delta.state_dict().values() if tensor.is_floating_point()}


@pytest.mark.parametrize("adapter", [LoRA(rank=2), DoRA(rank=2), LoLDU(rank=2)], ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_cast_to_16_bits_keeps_its_factors(adapter, dtype):
    net = adapted(adapter)
    before = inject.adapter_state_dict(net)
    assert net.to(dtype)[0].weight.dtype == net[1].weight.dtype == dtype
    assert dtypes(net) == {torch.float32}
    after = inject.adapter_state_dict(net)
    assert all(torch.equal(before[name], after[name]) for name in before)
    x = torch.randn(3, 8).to(dtype)
    with inject.disabled(net):
        expected = net(x)
    assert torch.equal(net(x), expected)


def test_an_fp64_model_has_fp64_factors():
    assert dtypes(adapted(LoRA(rank=2)).double()) == {torch.float64}
    base = nn.Sequential(nn.Linear(8, 8).double())
    assert dtypes(inject.inject(base, LoRA(rank=2), targets=Targets(modules=["0"]))) == {torch.float64}


@pytest.mark.parametrize("name", ["dora", "orthogonal", "asymmetric", "lu", "vera", "loldu"])
def test_every_method_is_the_same_under_autocast(name):
    net = adapted(part("adapter", name, "adapter.rank=4"))
    (delta,) = inject.deltas(net).values()
    with torch.no_grad():
        for parameter in delta.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))

    def values():
        known = [*delta.factors(), delta.matrix(), delta.row_scale(net[0].weight_matrix()), delta.penalty()]
        return [value.detach() for value in known if value is not None]

    expected = values()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert all(torch.equal(one, other) for one, other in zip(values(), expected, strict=True))
