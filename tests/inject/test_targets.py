"""Targets: anchored names, types, and errors that list near names."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, ViTForImageClassification

from tests.helpers.names import choices, part
from tests.helpers.nets import Net
from xlora_bench import inject
from xlora_bench.adapters import LoRA
from xlora_bench.inject.targets import Targets

SMALL = {
    "bert": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24},
    "roberta": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24},
    "electra": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24},
    "distilbert": {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24},
    "deberta-v2": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24},
    "vit": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24},
}


def model_of(kind):
    config = (
        AutoConfig.for_model(kind, vocab_size=50, **SMALL[kind])
        if kind != "vit"
        else AutoConfig.for_model(kind, **SMALL[kind])
    )
    return (
        ViTForImageClassification(config) if kind == "vit" else AutoModelForSequenceClassification.from_config(config)
    )


@pytest.mark.parametrize("kind", SMALL)
@pytest.mark.parametrize(
    ("preset", "per_layer"), [("attention_qv", 2), ("attention_qkv", 3), ("attention", 4), ("all_linear", 6)]
)
def test_presets_know_each_architecture(kind, preset, per_layer):
    names = part("targets", preset).names(model_of(kind))
    extra = [name for name in names if ".layer" not in name]  # electra projects its embeddings
    assert len(names) - len(extra) == 2 * per_layer
    assert not any("classifier" in name or "pooler" in name.split(".")[:1] for name in names)


def test_every_preset_is_known_here():
    assert set(choices("targets")) == {"attention_qv", "attention_qkv", "attention", "all_linear"}


def test_names_are_anchored_at_dots():
    net = Net(4, 4)
    assert Targets(modules=["target"]).names(net) == ["body.target"]
    assert Targets(modules=["body.target"]).names(net) == ["body.target"]
    with pytest.raises(ValueError, match="matches no module"):
        Targets(modules=["arget"]).names(net)
    assert Targets(modules=r".*\.(target|after)").names(net) == ["body.target", "body.after"]


def test_an_entry_without_a_match_lists_near_names():
    with pytest.raises(ValueError, match=r"entry 'qurey' matches no module; did you mean query\?"):
        Targets(modules=["query", "qurey"]).names(model_of("bert"))


@pytest.mark.parametrize("options", [{"modules": "query("}, {"architectures": {"bert": "query("}}])
def test_a_text_that_is_no_regular_expression_is_refused(options):
    with pytest.raises(ValueError, match=r"`targets.modules` \(='query\('\) is no regular expression"):
        Targets(**options)


def test_the_head_is_refused_by_name():
    with pytest.raises(ValueError, match=r"matches `classifier`, a Linear that cannot be adapted .*part of the head"):
        Targets(modules=["classifier"]).names(model_of("bert"))


def test_an_unknown_architecture_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match=r"no names for architecture 'Net' \(known: bert, .*targets.modules=\[...\]"):
        part("targets", "attention_qv").names(Net(4, 4))


def test_a_second_adapter_of_the_same_name_is_refused_and_another_one_sits_beside_it():
    net, targets = Net(4, 4), Targets(modules=["target"])
    inject.inject(net, LoRA(rank=2), targets=targets)
    with pytest.raises(ValueError, match=r"adapter 'default' is at `body\.target` already"):
        inject.inject(net, LoRA(rank=2), targets=targets)
    inject.inject(net, LoRA(rank=3), targets=targets, name="second")
    assert {name: delta.rank for name, delta in net.body["target"].deltas.items()} == {"default": 2, "second": 3}


def test_a_module_used_twice_is_adapted_once():
    net = Net(4, 4)
    net.body["again"] = net.body["target"]
    inject.inject(net, LoRA(rank=2), targets=Targets(modules=["target"]))
    assert net.body["again"] is net.body["target"]
    assert len(list(inject.adapted_layers(net))) == 1


def test_a_root_layer_becomes_the_new_root():
    root = torch.nn.Linear(4, 4)
    adapted = inject.inject(root, LoRA(rank=2), targets=Targets(modules="all-linear"))
    assert inject.deltas(adapted).keys() == {""}
    assert inject.remove(adapted) is root
