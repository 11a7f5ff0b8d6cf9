"""The state dict of the base, taken while adapters are in the model."""

import pytest
import torch
from torch import nn

from tests.helpers.classifiers import perturb, roberta
from tests.helpers.named_adapters import stacked
from xlora_bench import inject
from xlora_bench.adapters import LoRA
from xlora_bench.inject.targets import Targets


def test_it_is_that_of_the_plain_model_and_shares_its_tensors():
    plain, net = roberta(2), stacked("a", "b")
    inject.add_adapter(net, "c", LoRA(rank=2), targets=Targets(modules="all-linear"))
    perturb(inject.adapter_parameters(net, "c"))
    state = inject.base_state_dict(net)
    assert state.keys() == plain.state_dict().keys()
    assert all(torch.equal(state[key], tensor) for key, tensor in plain.state_dict().items())
    roberta(2, seed=5).load_state_dict(state, strict=True)
    assert state["roberta.encoder.layer.0.attention.self.query.weight"] is not None
    layer = dict(inject.adapted_layers(net))["roberta.encoder.layer.0.attention.self.query"]
    key = "roberta.encoder.layer.0.attention.self.query.weight"
    assert state[key].data_ptr() == layer.base_layer.weight.data_ptr()


@pytest.mark.parametrize(
    "layer",
    [nn.Linear(6, 5), nn.Conv2d(4, 6, 3), nn.Embedding(7, 5), nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))],
    ids=lambda layer: type(layer).__name__,
)
def test_any_layer_type_also_as_the_whole_model(layer):
    expected = {key: tensor.clone() for key, tensor in layer.state_dict().items()}
    adapted = inject.add_adapter(layer, "a", LoRA(rank=2), targets=Targets(modules=".*"))
    state = inject.base_state_dict(adapted)
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[key], tensor) for key, tensor in expected.items())
