"""VeRA's rank is the number of random features that layers share; its paper has 1024 on weights of 768 x 768."""

import copy

import pytest
import torch
from torch import nn

from tests.helpers.names import part
from tests.helpers.nets import TARGETS, Net, inputs
from xlora_bench import inject
from xlora_bench.adapters import VeRA
from xlora_bench.inject.methods import as_method
from xlora_bench.inject.targets import Targets


def test_a_rank_above_the_full_rank_is_taken_and_merges():
    method = part("adapter", "vera", "adapter.rank=50")
    base = Net(24, 24)
    before = base(inputs())
    net = as_method(method).apply(base, targets=TARGETS, init_scheme=method.default_init(), seed=0, total_steps=1)
    assert torch.equal(net(inputs()), before)
    assert as_method(method).closed_form(net) == 24 + 50
    with torch.no_grad():
        inject.deltas(net)["body.target"].vera_b.fill_(0.5)
    adapted = net(inputs())
    assert not torch.allclose(adapted, before)
    inject.merge(net)
    torch.testing.assert_close(net(inputs()), adapted)


@pytest.mark.parametrize(
    "move",
    [
        lambda net: net.double(),
        lambda net: net.to(torch.float64),
        copy.deepcopy,
        lambda net: copy.deepcopy(net).double(),
    ],
    ids=["double", "to", "deepcopy", "both"],
)
def test_layers_share_their_projections_after_a_move(move):
    net = nn.Sequential(*(nn.Linear(6, 6) for _ in range(3)), nn.Linear(6, 4))
    net = move(inject.inject(net, VeRA(rank=2, alpha=2), targets=Targets(modules="all-linear")))
    for name in ("projection_A", "projection_B"):
        tensors = [getattr(delta, name) for delta in inject.deltas(net).values()]
        assert len({tensor.data_ptr() for tensor in tensors[:3]}) == 1
        assert tensors[0].dtype == next(net.parameters()).dtype


def test_two_models_do_not_share_a_device():
    one, other = (
        inject.inject(nn.Linear(6, 6), VeRA(rank=2, alpha=2), targets=Targets(modules=[""])) for _ in range(2)
    )
    one.to("meta")
    assert inject.deltas(other)[""].projection_A.device.type == "cpu"
    assert other(torch.ones(1, 6)).isfinite().all()
