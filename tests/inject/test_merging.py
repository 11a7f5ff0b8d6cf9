"""What disabling, merging, removing and copying leave behind."""

import copy
import pickle

import torch
from torch import nn

from tests.helpers.classifiers import perturb, roberta
from tests.helpers.named_adapters import QV, logits, refused, stacked, used
from xlora_bench import inject
from xlora_bench.adapters import LoRA
from xlora_bench.inject.targets import Targets


def test_d1_d2_d3_disable_and_remove_leave_the_pretrained_weights():
    base = roberta(2)
    net = stacked("lora", "ortho", "loldu", base=copy.deepcopy(base))
    inject.use_adapters(net, "loldu")
    with inject.disabled(net):
        assert torch.equal(logits(net), logits(base))
    net = inject.remove(net)
    assert {name: value.tolist() for name, value in net.state_dict().items()} == {
        name: value.tolist() for name, value in base.state_dict().items()
    }


def test_merge_and_remove_merged_keep_the_adapter_and_its_head():
    net = stacked("mrpc", "rte")
    expected = used(net, "rte")
    inject.use_adapters(net, "rte")
    plain = inject.remove(net, merged=True)
    assert not list(inject.adapted_layers(plain))
    torch.testing.assert_close(logits(plain), expected, rtol=1e-4, atol=1e-5)


def test_merging_while_dropout_trains_is_refused():
    net = roberta(2)
    inject.add_adapter(net, "a", LoRA(rank=2, dropout=0.5), targets=QV)
    inject.use_adapters(net, "a")
    net.train()
    refused(net, lambda: inject.merge(net), "trains with dropout")
    inject.merge(net.eval())


def test_a_model_can_be_copied_and_pickled():
    net = stacked("mrpc", "rte")
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert torch.equal(used(twin, "rte"), used(net, "rte"))
        perturb(inject.adapter_parameters(twin, "rte"))
        assert not torch.equal(used(twin, "rte"), used(net, "rte"))


def test_root_layer_and_shared_modules():
    root = inject.add_adapter(nn.Linear(4, 3), "a", LoRA(rank=2), targets=Targets(modules=[""]))
    perturb(inject.adapter_parameters(root, "a"))
    x = torch.ones(2, 4)
    with inject.use_adapters(root, "a"):
        assert not torch.equal(root(x), root.base_layer(x))
    assert type(inject.remove_adapter(root, "a")) is nn.Linear
    shared = nn.Linear(4, 4)
    net = inject.add_adapter(nn.Sequential(shared, shared), "a", LoRA(rank=2), targets=Targets(modules=["0"]))
    assert net[0] is net[1]
