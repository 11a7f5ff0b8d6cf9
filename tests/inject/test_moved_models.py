"""Adapted models that are copied, cast, or offloaded: they compute the same, and share what they shared."""

import copy
from functools import cache

import accelerate
import pytest
import torch

from tests.helpers.adapted import perturbed
from tests.helpers.classifiers import bert, sentences
from tests.helpers.names import part
from tests.test_conformance import VARIANTS
from xlora_bench import inject
from xlora_bench.inject.targets import Targets

pytestmark = pytest.mark.slow


@cache
def model_of(adapter):
    """A trained classifier; tests change copies of it."""
    method = part("adapter", adapter, "adapter.rank=2")
    net = inject.inject(bert(), method, targets=Targets(modules=["query", "value"]), init_scheme=method.default_init())
    return perturbed(net).eval()


def logits(model):
    with torch.no_grad():
        return model(**sentences()).logits


def storages(model):
    return {tensor.data_ptr() for layer in inject.deltas(model).values() for tensor in layer.state_dict().values()}


@pytest.mark.parametrize("adapter", VARIANTS)
def test_a_copy_computes_the_same_and_is_independent(adapter):
    model = model_of(adapter)
    expected, other = logits(model), copy.deepcopy(model)
    assert torch.equal(logits(other), expected)
    assert not storages(other) & storages(model)
    perturbed(other)
    assert not torch.equal(logits(other), expected)
    assert torch.equal(logits(model), expected)


@pytest.mark.parametrize("adapter", VARIANTS)
def test_a_cast_and_back_computes_the_same(adapter):
    model = copy.deepcopy(model_of(adapter))
    expected = logits(model)
    torch.testing.assert_close(logits(model.double()).float(), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(logits(model.float()), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("adapter", VARIANTS)
def test_an_offloaded_model_computes_the_same(adapter):
    model = copy.deepcopy(model_of(adapter))
    expected = logits(model)
    accelerate.cpu_offload(model, execution_device=torch.device("cpu"))
    assert {weight.device.type for weight in model.parameters()} == {"meta"}
    for _ in range(2):  # the first forward must leave it offloaded
        torch.testing.assert_close(logits(model), expected, rtol=1e-6, atol=1e-6)
    assert {weight.device.type for weight in model.parameters()} == {"meta"}


@pytest.mark.parametrize("change", [copy.deepcopy, torch.nn.Module.double, lambda model: model.double().float()])
def test_the_matrices_of_vera_stay_shared(change):
    deltas = list(inject.deltas(change(copy.deepcopy(model_of("vera")))).values())
    assert len(deltas) > 1
    assert len({delta.projection_A.data_ptr() for delta in deltas}) == 1
    assert len({delta.projection_B.data_ptr() for delta in deltas}) == 1
