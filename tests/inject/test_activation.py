"""Which adapters compute: one, sums, none; every refusal leaves the model as it was."""

import pytest
import torch
from torch import nn

from tests.helpers.classifiers import perturb, roberta
from tests.helpers.named_adapters import QK, QV, logits, refused, stacked, used
from xlora_bench import inject
from xlora_bench.adapters import LoLDU, LoRA, Orthogonal
from xlora_bench.inject.targets import Targets
from xlora_bench.nn.layers.adapter_dict import key_of, name_of


def test_each_adapter_computes_as_if_it_were_alone():
    net = stacked("mrpc", "rte", "cola")
    for place, name in enumerate(["mrpc", "rte", "cola"]):
        alone = roberta(2)
        adapter, targets = [(LoRA(rank=2), QV), (Orthogonal(rank=3, alpha=5), QK), (LoLDU(rank=4), QV)][place]
        inject.add_adapter(alone, name, adapter, targets=targets)
        perturb(inject.adapter_parameters(alone, name), seed=place)
        assert torch.equal(used(net, name), used(alone, name))
    assert torch.equal(used(net), logits(roberta(2)))


def test_context_is_exception_safe_and_reentrant():
    net = stacked("mrpc", "rte")
    base, mrpc, rte = used(net), used(net, "mrpc"), used(net, "rte")
    assert not torch.equal(mrpc, rte)
    with torch.no_grad():
        context = inject.use_adapters(net, "mrpc")
        with context:
            assert torch.equal(logits(net), mrpc)
            with pytest.raises(IndexError), inject.use_adapters(net, "rte"):
                logits(net)[99]
            assert torch.equal(logits(net), mrpc)
            with inject.use_adapters(net, []), context:
                assert torch.equal(logits(net), mrpc)
        assert torch.equal(logits(net), base)
        with context:
            assert torch.equal(logits(net), mrpc)
        inject.use_adapters(net, "rte")
        assert torch.equal(logits(net), rte)


def test_a_layer_can_be_called_before_any_switch():
    net = stacked("mrpc")
    assert net.roberta.encoder.layer[0].attention.self.query(torch.ones(1, 2, 16)).shape == (1, 2, 16)


def test_sum_does_not_depend_on_the_order_to_the_bit():
    net = stacked("surrealism", "pokemon", "zebra", base=None)
    names, weights = ["surrealism", "pokemon", "zebra"], [0.3, 1.7, -0.2]
    expected = used(net, *names, weights=weights, head="zebra")
    for order in ([2, 0, 1], [1, 2, 0], [2, 1, 0]):
        got = used(net, *(names[i] for i in order), weights=[weights[i] for i in order], head="zebra")
        assert torch.equal(got, expected)


def test_weighted_sum_is_the_dense_formula():
    net = nn.Sequential(nn.Linear(6, 5))
    for name, rank in (("a", 2), ("b", 3)):
        inject.add_adapter(net, name, LoRA(rank=rank), targets=Targets(modules=["0"]))
        perturb(inject.adapter_parameters(net, name))
    base, x = net[0].base_layer, torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    W = base.weight + 0.25 * net[0].deltas["a"].matrix() - 2 * net[0].deltas["b"].matrix()
    with inject.use_adapters(net, ["b", "a"], weights=[-2, 0.25]):
        torch.testing.assert_close(net(x), x @ W.T + base.bias)
        inject.merge(net)
        torch.testing.assert_close(net(x), x @ W.T + base.bias)
    assert torch.equal(net(x), base(x))


def test_merged_weights_come_back_after_a_block():
    net = stacked("mrpc", "rte")
    inject.use_adapters(net, "mrpc")
    inject.merge(net)
    with torch.no_grad():
        merged = logits(net)
        with inject.use_adapters(net, "rte"):
            assert net.roberta.encoder.layer[0].attention.self.query.merged_weight is None
        assert torch.equal(logits(net), merged)


def test_unknown_repeated_and_unfit_names_are_errors():
    net = stacked("mrpc", "rte")
    refused(net, lambda: inject.use_adapters(net, "mprc"), "no adapter is called 'mprc'; the model has: mrpc, rte")
    refused(net, lambda: inject.use_adapters(net, ["mrpc", "mrpc"]), "repeats a name")
    refused(net, lambda: inject.use_adapters(net, ["mrpc"], weights=[1, 2]), "one finite number for each")
    refused(net, lambda: inject.use_adapters(net, ["mrpc"], weights=[float("nan")]), "one finite number for each")
    refused(net, lambda: inject.use_adapters(net, ["mrpc", "rte"]), "each have a task head; say which serves")
    refused(net, lambda: inject.route(net, ["mrpc", "x"]), "no adapter is called 'x'")
    refused(net, lambda: inject.route(net, "mrpc"), "must be a list with a name")
    refused(net, lambda: inject.adapter_parameters(net, "x"), "no adapter is called 'x'")
    refused(net, lambda: inject.save_adapter(net, "x", "x.safetensors"), "no adapter is called 'x'")


def test_double_injection_and_bad_names_leave_the_model_as_it_was():
    net = stacked("mrpc")
    refused(net, lambda: inject.add_adapter(net, "mrpc", LoRA(), targets=QK), "is at `roberta.*` already")
    for name in ("a/b", "", " ", "a\\b", "a\n"):
        refused(net, lambda name=name: inject.add_adapter(net, name, LoRA(rank=2), targets=QV), "without slashes")
    refused(net, lambda: inject.add_adapter(net, "x", LoRA(rank=99), targets=QV), r"`adapter.rank` \(=99\)")
    refused(net, lambda: inject.add_adapter(net, "x", LoRA(rank=2, bias="all"), targets=QV), "biases of the base")
    wrong = {"clasifier": nn.Linear(2, 2)}
    refused(net, lambda: inject.add_adapter(net, "x", LoRA(rank=2), targets=QV, head=wrong), "no module of the model")
    for head in ("classifier", {"classifier": None}, 3):
        call = lambda head=head: inject.add_adapter(net, "x", LoRA(rank=2), targets=QV, head=head)  # noqa: E731
        refused(net, call, "map module names to modules")


@pytest.mark.parametrize(
    "add", [inject.inject, lambda net, *args, **options: inject.add_adapter(net, "x", *args, **options)]
)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"adapter": None}, r"`adapter` \(=None\) must be an object such as xlora_bench.LoRA"),
        ({"adapter": "lora"}, r"`adapter` \(='lora'\)"),
        ({"adapter": LoRA}, r"`adapter` \(=<class"),
        ({"targets": None}, r"`targets` \(=None\)"),
        ({"targets": ["query"]}, r"`targets` \(=\['query'\]\)"),
        ({"init_scheme": "kaiming"}, r"`init_scheme` \(='kaiming'\)"),
    ],
)
def test_options_of_another_class_leave_the_model_as_it_was(add, options, message):
    net = roberta(2)
    given = {"adapter": LoRA(rank=2), "targets": QV, **options}
    refused(net, lambda: add(net, given.pop("adapter"), **given), message)


@pytest.mark.parametrize("name", ["v1.2", ".", "100%", "%2E", "keys", "training", "train", "a.b.c", "日本"])
def test_names_with_dots_and_names_of_attributes_work(name, tmp_path):
    assert name_of(key_of(name)) == name
    net = stacked(name, "other")
    inject.save_adapter(net, name, tmp_path / "a.safetensors")
    fresh = inject.load_adapter(roberta(2), tmp_path / "a.safetensors")
    assert inject.adapter_names(fresh) == [name]
    assert torch.equal(used(fresh, name), used(net, name))
    twin = stacked(name, "other")
    perturb(inject.adapter_parameters(twin, name))
    twin.load_state_dict(net.state_dict())
    assert torch.equal(used(twin, name), used(net, name))


def test_rename_and_remove():
    net, base = stacked("mrpc", "rte"), roberta(2)
    mrpc, rte = used(net, "mrpc"), used(net, "rte")
    inject.use_adapters(net, "mrpc")
    inject.rename_adapter(net, "mrpc", "v2.0")
    assert inject.adapter_names(net) == ["rte", "v2.0"]
    with torch.no_grad():  # as in `used`: without gradients an update may be summed in another order
        assert torch.equal(logits(net), mrpc)
    refused(net, lambda: inject.rename_adapter(net, "v2.0", "rte"), "already")
    net = inject.remove_adapter(net, "v2.0")
    assert torch.equal(used(net, "rte"), rte)
    net = inject.remove_adapter(net, "rte")
    assert [type(module) for module in net.modules()] == [type(module) for module in base.modules()]
    assert torch.equal(logits(net), logits(base))


def test_adapters_train_and_freeze_one_by_one():
    net = stacked("mrpc", "rte")
    inject.requires_grad_(net, "mrpc", requires_grad=False)
    assert not any(parameter.requires_grad for parameter in inject.adapter_parameters(net, "mrpc"))
    assert all(parameter.requires_grad for parameter in inject.adapter_parameters(net, "rte"))
    trained = {id(parameter) for parameter in net.parameters() if parameter.requires_grad}
    assert trained == {id(parameter) for parameter in inject.adapter_parameters(net, "rte")}


def test_enable_gives_back_what_disable_took():
    net = stacked("a", "b", "c")
    base = logits(roberta(2))
    inject.use_adapters(net, ["a", "c"], weights=[1.0, 0.5], head="c")
    before = logits(net)
    for _ in range(2):
        inject.disable(net)
        inject.disable(net)
        assert torch.equal(logits(net), base)
        inject.enable(net)
        assert torch.equal(logits(net), before)
    inject.merge(net)
    merged = logits(net)
    inject.disable(net)
    inject.enable(net)
    assert torch.equal(logits(net), merged)


def test_enable_needs_a_name_only_if_it_is_not_clear():
    net = stacked("a")
    inject.disable(net)
    inject.enable(net, "a")
    inject.enable(net)
    assert inject.adapter_names(net) == ["a"]
    net = stacked("a", "b")
    with pytest.raises(ValueError, match="`name` must be one of a, b, since the model has several adapters"):
        inject.enable(net)
