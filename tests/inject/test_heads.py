"""Each adapter has its own task head."""

import torch

from tests.helpers.classifiers import roberta
from tests.helpers.named_adapters import QV, logits, stacked, used
from xlora_bench import inject
from xlora_bench.adapters import LoRA


def test_heads_are_switched_and_may_differ_in_labels():
    net = roberta(2)
    inject.add_adapter(net, "mrpc", LoRA(rank=2), targets=QV)
    inject.add_adapter(net, "mnli", LoRA(rank=2), targets=QV, head=inject.new_head(net, num_labels=3, seed=1))
    inject.add_adapter(net, "style", LoRA(rank=2), targets=QV, head={})
    assert used(net, "mnli").shape == (6, 3)
    assert used(net, "mrpc").shape == (6, 2)
    assert used(net, "style", "mnli").shape == (6, 3)
    assert torch.equal(used(net, "mrpc"), logits(roberta(2)))  # a copy of the base's head, and a delta of zero
    again = inject.new_head(roberta(2), num_labels=3, seed=1)["classifier"]
    assert torch.equal(again.out_proj.weight, inject.heads(net, "mnli")["classifier"].out_proj.weight)


def test_heads_train_with_their_adapter_alone():
    net = stacked("mrpc", "rte")
    with inject.use_adapters(net, "mrpc"):
        logits(net).square().sum().backward()
    assert all(parameter.grad is not None for parameter in inject.adapter_parameters(net, "mrpc"))
    with_gradient = {id(parameter) for parameter in net.parameters() if parameter.grad is not None}
    assert with_gradient == {id(parameter) for parameter in inject.adapter_parameters(net, "mrpc")}
