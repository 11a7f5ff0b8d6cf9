"""Baselines and peft as methods: what trains, what is refused, and AdaLoRA's own bookkeeping."""

import copy

import pytest
import torch

from tests.helpers.names import choices, part
from tests.helpers.nets import TARGETS, Net, inputs, train
from xlora_bench.adapters import Adapter
from xlora_bench.inject.methods import Baseline, Peft, as_method

OWN = part("init_scheme", "builtin")
PEFT = [name for name in choices("adapter") if isinstance(part("adapter", name), Peft)]
RANDOM_START = {"peft_fourierft"}  # its paper starts from random coefficients, not from the pretrained weight
OTHERS = [name for name in choices("adapter") if not isinstance(part("adapter", name), Adapter)]


def small(name):
    if name == "peft_adalora":
        return part("adapter", name, "adapter.options.init_r=4", "adapter.rank=2")
    if name == "peft_fourierft":
        return part("adapter", name, "adapter.options.n_frequency=40", "adapter.options.scaling=10")
    return part("adapter", name, "adapter.rank=4") if name in PEFT and name != "peft_ia3" else part("adapter", name)


def applied(name, net):
    return as_method(small(name)).apply(net, targets=TARGETS, init_scheme=OWN, seed=0, total_steps=20)


@pytest.mark.parametrize("name", OTHERS)
def test_output_is_unchanged_at_step_0_and_training_moves_it(name):
    base = Net(24, 24)
    net = applied(name, copy.deepcopy(base))
    if name in RANDOM_START:
        assert not torch.allclose(net(inputs()), base(inputs()))
        net.base_model.disable_adapter_layers()
    for parameter in [p for n, p in net.named_parameters() if "head" in n]:
        parameter.requires_grad_(True)
    torch.testing.assert_close(net(inputs()), base(inputs()), rtol=0, atol=1e-6)
    if name in RANDOM_START:
        net.base_model.enable_adapter_layers()
    losses = train(net, inputs(), steps=5, method=small(name))
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    ("name", "trained"),
    [
        ("head", set()),
        ("bitfit", {"body.before.bias", "body.target.bias", "body.after.bias"}),
        ("full", {f"body.{layer}.{kind}" for layer in ("before", "target", "after") for kind in ("weight", "bias")}),
    ],
)
def test_baselines_train_their_patterns_and_leave_the_head_to_the_trainer(name, trained):
    net = applied(name, Net(24, 24))
    assert {n for n, p in net.named_parameters() if p.requires_grad and not n.startswith("head")} == trained


def test_a_pattern_that_matches_nothing_is_an_error():
    with pytest.raises(ValueError, match="'LayerNorm' matches no base parameter"):
        as_method(Baseline(trainable=["LayerNorm"])).apply(
            Net(4, 4), targets=TARGETS, init_scheme=OWN, seed=0, total_steps=1
        )


@pytest.mark.parametrize("name", OTHERS)
def test_a_start_is_refused_where_it_would_be_ignored(name):
    with pytest.raises(ValueError, match=r"`init_scheme` \(=kaiming\).*init_scheme=builtin"):
        as_method(small(name)).apply(
            Net(24, 24), targets=TARGETS, init_scheme=part("init_scheme", "kaiming"), seed=0, total_steps=1
        )


@pytest.mark.parametrize("name", PEFT)
def test_peft_draws_from_its_own_stream_and_leaves_the_global_one_alone(name):
    before = torch.random.get_rng_state()
    first, second = applied(name, Net(24, 24)), applied(name, Net(24, 24))
    assert torch.equal(torch.random.get_rng_state(), before)
    for (key, a), (_, b) in zip(first.named_parameters(), second.named_parameters(), strict=True):
        assert torch.equal(a, b), key


def test_plain_peft_lora_has_our_closed_form():
    net = applied("peft", Net(40, 24))
    trained = sum(p.numel() for p in net.parameters() if p.requires_grad)
    assert as_method(small("peft")).closed_form(net) == trained == 4 * (40 + 24)
    assert set(as_method(small("peft")).ranks(net).values()) == {4}


def test_adalora_reaches_its_target_rank_and_is_penalised():
    method, net = small("peft_adalora"), applied("peft_adalora", Net(24, 24))
    assert as_method(method).penalty(net).item() > 0
    train(net, inputs(), steps=20, method=method)
    layer = net.base_model.model.body["target"]
    assert int((layer.lora_E["default"] != 0).sum()) == 2


def test_only_adalora_keeps_state_that_no_checkpoint_holds():
    assert [name for name in choices("adapter") if not as_method(part("adapter", name)).resumable] == ["peft_adalora"]


def test_a_config_class_that_peft_lacks_is_named():
    with pytest.raises(ValueError, match=r"`adapter.config_class` \(=LorraConfig\) is not a config of peft"):
        Peft(config_class="LorraConfig")


def test_options_that_peft_refuses_are_named():
    with pytest.raises(ValueError, match="is not an option of peft's LoraConfig"):
        as_method(Peft(options={"rank": 4})).apply(Net(4, 4), targets=TARGETS, init_scheme=OWN, seed=0, total_steps=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *(({"init_lora_weights": name}, "a pass over the data") for name in ("eva", "corda", "lora_ga", "EVA")),
        ({"init_lora_weights": "loftq"}, "a quantised base"),
        ({"eva_config": {}}, "a pass over the data"),
        ({"kasa_config": {"beta": 1}}, "a loss of its own"),
        ({"monteclora_config": {}}, "a loss of its own"),
        ({"arrow_config": {}}, "routes among"),
    ],
)
def test_what_would_be_a_run_under_a_false_name_is_refused(options, message):
    (key,) = options
    with pytest.raises(ValueError, match=rf"`adapter\.options\.{key}` .* is refused: .*{message}"):
        Peft(options=options)


def trained_delta(method):
    """Return what a method adds to the outputs, at step 0 and after three steps of training."""
    base = Net(24, 24)
    net = as_method(method).apply(copy.deepcopy(base), targets=TARGETS, init_scheme=OWN, seed=0, total_steps=20)
    names = {name: parameter.detach().clone() for name, parameter in net.named_parameters() if "lora" in name}
    train(net, inputs(), steps=3, method=method)
    return names, (net(inputs()) - base(inputs())).detach()


@pytest.mark.parametrize("init", ["gaussian", "pissa", "pissa_niter_4", "olora", "orthogonal", "mica", False])
def test_every_init_of_peft_differs_from_plain_lora(init):
    plain, other = (trained_delta(Peft(options={"r": 4, "init_lora_weights": one}))[0] for one in (True, init))
    assert plain.keys() == other.keys()
    assert any(not torch.equal(plain[name], other[name]) for name in plain)


@pytest.mark.parametrize("name", [name for name in PEFT if name != "peft"])
def test_every_preset_of_peft_trains_otherwise_than_plain_lora(name):
    assert not torch.allclose(trained_delta(small(name))[1], trained_delta(small("peft"))[1], atol=1e-4)
