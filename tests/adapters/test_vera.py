"""VeRA's rank is the number of random features that layers share; its paper has 1024 on weights of 768 x 768."""

import torch

from tests.helpers.names import part
from tests.helpers.nets import TARGETS, Net, inputs
from xlora_bench import inject
from xlora_bench.inject.methods import as_method


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
