"""Defects of the systems that this project replaces, that no other test is named after."""

import pytest
import torch
from torch import nn

from tests.helpers.classifiers import perturb, roberta
from xlora_bench import inject
from xlora_bench.adapters import Asymmetric, LoLDU, LoRA
from xlora_bench.adapters.asymmetric import parse_spec
from xlora_bench.adapters.init_schemes import KaimingInit
from xlora_bench.inject.targets import Targets

pytestmark = pytest.mark.slow

TARGETS = Targets(modules=["0"])


def adapted(adapter, shape=(9, 6)):
    """Return a one-layer net with `adapter`, and its delta."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(shape[1], shape[0]))
    inject.inject(net, adapter, targets=TARGETS)
    return net, net[0].deltas["default"]


def test_the_base_weight_is_in_the_state_dict_once():
    net, _ = adapted(LoLDU(rank=4))
    assert [key for key in net.state_dict() if key.endswith("weight")] == ["0.base_layer.weight"]


def test_dropout_of_the_options_acts_in_training_and_only_there():
    net, delta = adapted(LoRA(rank=2, dropout=0.5))
    perturb(delta.parameters())
    x = torch.ones(64, 6)
    assert len(net.train()(x).unique(dim=0)) > 8  # a mask for each row, not one for the batch
    assert torch.equal(net.eval()(x), net(x))


def test_messages_name_the_variant_at_hand_and_nothing_is_printed(capsys):
    net = nn.Sequential(nn.Linear(4, 4))
    with pytest.raises(ValueError, match=r"`adapter` \(=loldu\)"):
        inject.inject(net, LoLDU(rank=2), targets=TARGETS, init_scheme=KaimingInit())
    adapted(LoLDU(rank=2))
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("spec", "rows"), [("A_V_hB_zero", slice(0, 3)), ("A_V_last_hB_zero", slice(3, 6))])
def test_singular_vectors_are_rows_of_vh_of_the_pretrained_weight(spec, rows):
    net, delta = adapted(Asymmetric(rank=3, spec=spec))
    Vh = torch.linalg.svd(net[0].weight.detach(), full_matrices=False).Vh
    torch.testing.assert_close(delta.lora_A @ Vh[rows].T @ Vh[rows], delta.lora_A)  # they span the same subspace
    torch.testing.assert_close(delta.lora_A @ delta.lora_A.T, torch.eye(3))


def test_names_of_strategies_mean_what_they_say_in_any_order():
    for spec in ("A_rand_hB_zero", "hB_zero_A_rand"):
        _, delta = adapted(Asymmetric(rank=3, spec=spec))
        assert [name for name, _ in delta.named_parameters()] == ["lora_B"]
        assert not delta.lora_B.any()
    assert parse_spec("hB_zero_A_V_last")["A"].init == "V_last"


def test_the_structured_form_needs_no_middle_factor():
    _, delta = adapted(
        Asymmetric(rank=3, spec=None, A={"init": "V", "train": False}, B={"init": "zero", "train": True})
    )
    assert delta.lora_E is None


@pytest.mark.parametrize("spec", ["A_kaiming_hB_zero", "A_rand_hB_V", "A_rand", "A_rand_hB_zero_x"])
def test_unknown_starts_are_errors(spec):
    with pytest.raises(ValueError, match=r"`?adapter.spec`?"):
        Asymmetric(rank=3, spec=spec)


def test_an_unused_middle_factor_is_neither_made_nor_saved():
    net, _ = adapted(Asymmetric(rank=3, spec="A_rand_hB_zero"))
    assert not [key for key in inject.adapter_state_dict(net) if "lora_E" in key]


def test_frozen_factors_get_no_gradient():
    net, delta = adapted(Asymmetric(rank=3, spec="A_rand_hB_zero"))
    net(torch.ones(2, 6)).sum().backward()
    assert not delta.lora_A.requires_grad
    assert delta.lora_B.grad is not None


def test_targets_that_cannot_be_adapted_are_errors_by_name():
    net = nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 4))
    with pytest.raises(ValueError, match="LayerNorm that cannot be adapted"):
        inject.inject(net, LoRA(rank=2), targets=TARGETS)


def test_each_adapter_keeps_its_own_options():
    net = roberta(2)
    options = {"a": LoRA(rank=2), "b": LoLDU(rank=3, z_init="ones")}
    for name, adapter in options.items():
        inject.add_adapter(net, name, adapter, targets=Targets(modules=["query"]))
    layer = net.roberta.encoder.layer[0].attention.self.query
    assert {name: origin.adapter for name, origin in layer.adapter_configs.items()} == options
