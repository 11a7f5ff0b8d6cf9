"""Each row of a batch has its own adapter, in training too."""

import pytest
import torch
from torch import nn

from tests.helpers.classifiers import bert, perturb, sentences
from tests.helpers.named_adapters import QV, logits, refused, stacked
from xlora_bench import inject
from xlora_bench.adapters import LoRA
from xlora_bench.inject.targets import Targets
from xlora_bench.models.packed import forward

ROWS = ["mrpc", "rte", "mrpc", None, "rte", "rte"]


def select(batch, rows):
    return {key: value[rows] for key, value in batch.items()}


def gradients(net):
    return {name: parameter.grad.clone() for name, parameter in net.named_parameters() if parameter.grad is not None}


def test_routed_rows_equal_each_adapter_alone_in_training_too():
    net, batch = stacked("mrpc", "rte").train(), sentences()
    with inject.route(net, ROWS):
        routed = logits(net, batch)
        routed.square().sum().backward()
    got = gradients(net)
    net.zero_grad()
    for name in ("mrpc", "rte", None):
        rows = [row for row, other in enumerate(ROWS) if other == name]
        with inject.use_adapters(net, [name] if name else []):
            alone = logits(net, select(batch, rows))
        torch.testing.assert_close(routed[rows], alone, rtol=1e-5, atol=1e-6)
        if name:
            alone.square().sum().backward()
    expected = gradients(net)
    assert set(got) == set(expected)
    for name, gradient in expected.items():
        torch.testing.assert_close(got[name], gradient, rtol=1e-4, atol=1e-5, msg=name)


def test_routed_heads_of_different_widths_fill_up_with_impossible_classes():
    net = stacked("mrpc", base=bert(2))
    inject.add_adapter(net, "mnli", LoRA(rank=2), targets=QV, head=inject.new_head(net, num_labels=3, seed=1))
    labels = torch.tensor([0, 2, 1])
    batch = sentences(3)
    with inject.route(net, ["mrpc", "mnli", "mrpc"]):
        got = logits(net, batch)
        loss = nn.functional.cross_entropy(got, labels)
        loss.backward()
    assert got[0, 2] == got[2, 2] == float("-inf")
    with torch.no_grad(), inject.use_adapters(net, "mrpc"):
        torch.testing.assert_close(got[0, :2], logits(net, batch)[0])
    assert loss.isfinite()
    assert all(gradient.isfinite().all() for gradient in gradients(net).values())


def test_routing_is_refused_where_rows_are_not_the_batch():
    net, batch = stacked("mrpc", "rte"), sentences()
    with inject.route(net, ["mrpc", "rte"]):
        with pytest.raises(ValueError, match="2 rows are routed, but an adapted module got an input of shape"):
            logits(net, batch)
        with pytest.raises(ValueError, match="packed batches hold several sentences"):
            forward(net, batch | {"segment_ids": torch.ones(6, 7), "first": torch.arange(6)})
        with pytest.raises(ValueError, match="packed batches hold several sentences"):
            forward(net, batch | {"rows": ((7,),) * 6, "first": torch.arange(6)})
        refused(net, lambda: inject.merge(net), "rows are routed")
    assert not inject.query.is_routed(net)


def test_sums_and_switches_compile_to_one_graph():
    net = nn.Sequential(nn.Linear(6, 5))
    for name in ("v1.0", "b"):
        inject.add_adapter(net, name, LoRA(rank=2), targets=Targets(modules=["0"]))
        perturb(inject.adapter_parameters(net, name))
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    for names in (["v1.0"], ["b", "v1.0"], []):
        with inject.use_adapters(net, names):
            assert torch.equal(compiled(torch.ones(2, 6)), net(torch.ones(2, 6)))
