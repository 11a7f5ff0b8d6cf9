"""Convolutions: every option of `nn.Conv*d` against a plain convolution with the updated weight."""

import copy

import pytest
import torch
from torch import nn

from tests.helpers.adapted import adapted, matrix, perturbed, seeded
from xlora_bench import inject

TYPES = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
SIZES = {1: (7,), 2: (7, 6), 3: (5, 4, 6)}
OPTIONS = [
    {},
    {"stride": 2, "padding": 1},
    {"dilation": 2, "padding": 2},
    {"padding": "same"},
    {"padding": "same", "dilation": 2, "padding_mode": "circular"},
    {"padding": "valid"},
    {"padding": 1, "padding_mode": "reflect"},
    {"padding": 1, "padding_mode": "replicate", "stride": 2},
    {"padding": 1, "padding_mode": "circular", "groups": 2},
    {"groups": 4, "bias": False},
    {"groups": 2, "padding": "same", "padding_mode": "reflect"},
]


def updated(layer):
    """Return a plain convolution with the weight `W + update`."""
    plain = copy.deepcopy(layer.base_layer)
    with torch.no_grad():
        plain.weight += matrix(layer).view(plain.weight.shape)
    return plain


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("axes", TYPES)
def test_options_equal_a_convolution_with_the_updated_weight(axes, options):
    base = seeded(lambda: TYPES[axes](4, 8, 2 if options.get("groups") == 4 else 3, **options))
    x = torch.randn(2, 4, *SIZES[axes], generator=torch.Generator().manual_seed(1))
    layer = adapted(base)
    assert torch.equal(layer(x), base(x))
    output = perturbed(layer)(x)
    torch.testing.assert_close(output, updated(layer)(x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(layer(x[0]), output[0], rtol=1e-4, atol=1e-5)
    inject.merge(layer)
    torch.testing.assert_close(layer(x), output, rtol=1e-4, atol=1e-5)


def test_gradients_equal_those_through_the_dense_weight():
    layer = perturbed(adapted(seeded(lambda: nn.Conv2d(4, 8, 3, groups=2, padding="same", padding_mode="circular"))))
    x = torch.randn(2, 4, 5, 5, generator=torch.Generator().manual_seed(1))
    delta = layer.deltas["default"]
    layer(x).square().sum().backward()
    A, B = (factor.detach().clone().requires_grad_() for factor in (delta.lora_A, delta.lora_B))
    weight = layer.weight + delta.scaling * (B @ A).view(layer.weight.shape)
    torch.func.functional_call(layer.base_layer, {"weight": weight}, (x,)).square().sum().backward()
    torch.testing.assert_close(delta.lora_A.grad, A.grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(delta.lora_B.grad, B.grad, rtol=1e-4, atol=1e-4)


def test_rank_is_limited_by_the_matrix_view():
    with pytest.raises(ValueError, match=r"`adapter.rank` \(=5\) .* min\(out, in\) \(=4\)"):
        adapted(nn.Conv2d(8, 8, 2, groups=8), rank=5)  # (8, 8 / 8 * 2 * 2)


def test_bfloat16_and_channels_last():
    base = seeded(lambda: nn.Conv2d(4, 8, 3, padding=1)).to(torch.bfloat16)
    layer = perturbed(adapted(base))
    x = torch.randn(2, 4, 5, 5).to(torch.bfloat16).to(memory_format=torch.channels_last)
    assert layer(x).dtype == torch.bfloat16
    torch.testing.assert_close(layer(x), updated(layer)(x), rtol=3e-2, atol=3e-2)
