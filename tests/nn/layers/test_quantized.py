"""A base in 8 or 4 bits (torchao, on the CPU): adapters train on it; merging asks before it takes a plain weight."""

import copy

import pytest
import torch
from torch import nn

from tests.helpers.adapted import perturbed, seeded
from tests.helpers.names import part
from xlora_bench import inject
from xlora_bench.inject.targets import Targets

pytest.importorskip("torchao", reason="torchao is not installed (the extra `quantized`)")

STARTS = [
    ("lora", "kaiming"),
    ("lora", "svd_left"),
    ("loldu", "ldu"),
    ("lu", "unit_diagonal"),
    ("asymmetric", "builtin"),
]
X = torch.randn(5, 64, generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=["int8", "int4"])
def base(request):
    from torchao.quantization import Int8WeightOnlyConfig, IntxWeightOnlyConfig, PerGroup, quantize_

    model = seeded(lambda: nn.Sequential(nn.Linear(64, 96), nn.Tanh(), nn.Linear(96, 3)))
    config = {"int8": Int8WeightOnlyConfig, "int4": lambda: IntxWeightOnlyConfig(torch.int4, PerGroup(32))}
    quantize_(model, config[request.param](), filter_fn=lambda module, name: name == "0")
    return model


def on(base, adapter, scheme):
    method = part("adapter", adapter, "adapter.rank=4", "adapter.alpha=12")
    return inject.inject(
        copy.deepcopy(base), method, targets=Targets(modules=["0"]), init_scheme=part("init_scheme", scheme)
    )


@pytest.mark.parametrize(("adapter", "scheme"), STARTS)
def test_adapters_train_on_it_and_leave_it_alone(base, adapter, scheme):
    model = on(base, adapter, scheme)
    assert torch.equal(model(X), base(X))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(10):
        optimizer.zero_grad()
        loss = (model(X) - 1.0).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert torch.equal(model[0].weight.dequantize(), base[0].weight.dequantize())
    with inject.disabled(model):
        assert torch.equal(model(X), base(X))


@pytest.mark.parametrize(("adapter", "scheme"), STARTS)
def test_merging_refuses_or_dequantises_on_request(base, adapter, scheme):
    model = perturbed(on(base, adapter, scheme))
    output = model(X)
    with pytest.raises(ValueError, match="dequantize=True"):
        inject.merge(model)
    assert torch.equal(model(X), output)
    inject.merge(model, dequantize=True)
    torch.testing.assert_close(model(X), output, rtol=1e-3, atol=1e-4)
    inject.unmerge(model)
    assert torch.equal(model(X), output)
    with pytest.raises(ValueError, match="dequantize=True"):
        inject.remove(model, merged=True)
    plain = inject.remove(model, merged=True, dequantize=True)
    assert type(plain[0].weight) is nn.Parameter
    torch.testing.assert_close(plain(X), output, rtol=1e-3, atol=1e-4)


def test_the_start_is_that_of_the_weight_the_layer_computes_with(base):
    delta = on(base, "lora", "svd_left")[0].deltas["default"]
    U, S, Vh = torch.linalg.svd(base[0].weight.dequantize(), full_matrices=False)
    best = (U[:, :4] * S[:4]) @ Vh[:4]
    torch.testing.assert_close(delta.scaling * (delta.B0 @ delta.A0), best, rtol=1e-3, atol=1e-4)


def test_layers_that_pack_their_weight_are_refused():
    class Linear4bit(nn.Linear):  # as bitsandbytes has it: a subclass whose weight is packed bytes
        def forward(self, x):
            return x

    with pytest.raises(ValueError, match=r"a Linear4bit that cannot be adapted since .* forward of its own"):
        inject.inject(nn.Sequential(Linear4bit(4, 4)), part("adapter", "lora"), targets=Targets(modules=["0"]))
