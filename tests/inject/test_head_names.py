"""The head of a model, by its names."""

import torch

from tests.helpers.nets import Net
from xlora_bench.inject.head_names import head_module_names, head_parameter_names


def test_the_head_is_everything_beside_the_base():
    assert head_module_names(Net(4, 4)) == ["head"]
    assert head_parameter_names(Net(4, 4)) == {"head.weight", "head.bias"}
    assert head_parameter_names(torch.nn.Linear(2, 2)) == set()
