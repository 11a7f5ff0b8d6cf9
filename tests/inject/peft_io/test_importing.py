"""An adapter that peft made gives here the logits that peft gives."""

import copy
import json

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.helpers.classifiers import bert, perturb, roberta, sentences
from xlora_bench import inject
from xlora_bench.inject.peft_io import export_peft, import_peft

pytestmark = pytest.mark.slow

KINDS = {
    "lora": {},
    "rslora": {"use_rslora": True},
    "gaussian": {"init_lora_weights": "gaussian"},
    "orthogonal": {"init_lora_weights": "orthogonal"},
    "pissa": {"init_lora_weights": "pissa"},
    "olora": {"init_lora_weights": "olora"},
    "dora": {"use_dora": True},
    "dora from pissa": {"use_dora": True, "init_lora_weights": "pissa"},
    "patterns": {"rank_pattern": {"query": 2}, "alpha_pattern": {"layer.0.attention.self.value": 3}},
}


def logits(net):
    with torch.no_grad():
        return net.eval()(**sentences()).logits


def trained(base, folder, *, save=None, **options):
    """Save an adapter that peft made on a copy of `base` and return peft's logits."""
    config = peft.LoraConfig(r=4, lora_alpha=12, target_modules=["query", "value"], task_type="SEQ_CLS", **options)
    net = peft.get_peft_model(copy.deepcopy(base), config)
    if save:
        net.save_pretrained(f"{folder}-start")
    what = ".lora_" if save else ""  # peft's conversion forgets the head
    perturb(tensor for name, tensor in net.named_parameters() if tensor.requires_grad and what in name)
    net.save_pretrained(folder, **({"path_initial_model_for_weight_conversion": f"{folder}-start"} if save else {}))
    return logits(net)


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_those_of_peft(kind, tmp_path):
    base = roberta(3)
    expected, untouched = trained(base, tmp_path / "mrpc", **KINDS[kind]), logits(base)
    net = import_peft(copy.deepcopy(base), tmp_path / "mrpc")
    assert torch.equal(logits(net), untouched)
    with inject.use_adapters(net, "mrpc"):
        torch.testing.assert_close(logits(net), expected, rtol=1e-5, atol=2e-5)
    assert not torch.allclose(expected, untouched, atol=0.01)


@pytest.mark.parametrize("kind", ["pissa", "olora"])
def test_converted_by_peft_it_is_plain_lora(kind, tmp_path):
    base = roberta(3)
    expected = trained(base, str(tmp_path / "a"), save=True, init_lora_weights=kind)
    net = import_peft(copy.deepcopy(base), tmp_path / "a", name="x")
    assert next(iter(inject.deltas(net, "x").values())).B0 is None
    inject.use_adapters(net, "x")
    torch.testing.assert_close(logits(net), expected, rtol=1e-5, atol=2e-5)


def test_there_and_back(tmp_path):
    base = roberta(3)
    trained(base, tmp_path / "a", init_lora_weights="pissa", rank_pattern={"query": 2})
    net = import_peft(copy.deepcopy(base), tmp_path / "a")
    inject.use_adapters(net, "a")
    export_peft(net, tmp_path / "b", name="a")
    inject.save_adapter(net, "a", tmp_path / "a.safetensors")
    for back in (
        import_peft(copy.deepcopy(base), tmp_path / "b", name="a"),
        inject.load_adapter(copy.deepcopy(base), tmp_path / "a.safetensors"),
    ):
        inject.use_adapters(back, "a")
        torch.testing.assert_close(logits(back), logits(net), rtol=1e-5, atol=2e-5)


def test_head_brings_its_own_number_of_labels(tmp_path):
    expected = trained(roberta(3), tmp_path / "three")
    net = import_peft(roberta(2), tmp_path / "three")
    with inject.use_adapters(net, "three"):
        assert logits(net).shape == expected.shape
    assert logits(net).shape[1] == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"init_lora_weights": "pissa_niter_2"}, "path_initial_model_for_weight_conversion"),
        ({"bias": "lora_only"}, "trained biases"),
    ],
)
def test_unsupported_kinds_are_refused_by_name(options, message, tmp_path):
    base = bert(3)
    trained(base, tmp_path / "a", **options)
    refused(base, tmp_path / "a", message)


def refused(net, folder, message):
    """Check that the import fails with `message` and leaves the model as it was."""
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        import_peft(net, folder)
    assert {name: tensor.tolist() for name, tensor in net.state_dict().items()} == {
        name: tensor.tolist() for name, tensor in before.items()
    }
    assert all(parameter.requires_grad for parameter in net.parameters())


def test_missing_unexpected_and_misfitting_tensors_are_errors(tmp_path):
    base = bert(3)
    trained(base, tmp_path / "a")
    path = tmp_path / "a" / "adapter_model.safetensors"
    state = load_file(path)
    factor = next(key for key in state if key.endswith("lora_A.weight"))
    cases = [
        ({key: value for key, value in state.items() if key != factor}, "it needs"),
        (state | {factor: state[factor][:, 1:].clone()}, "of another model"),
        (state | {"base_model.model.pooler.weight": torch.ones(2)}, "no module of this"),
        (state | {"base_model.model.classifier.scale": torch.ones(2)}, "unexpected"),
        (state | {factor.replace("layer.0", "layer.9"): state[factor].clone()}, "does not have"),
    ]
    for damaged, message in cases:
        save_file(damaged, path)
        refused(base, tmp_path / "a", message)
    path.write_bytes(path.read_bytes()[:200])
    refused(base, tmp_path / "a", "cannot be read")
    refused(base, tmp_path / "nowhere", "holds no adapter_config.json")


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("r", 0, r"r` \(=0\) must be a whole number of at least 1"),
        ("r", ["x"], r"r` \(=\['x'\]\)"),
        ("lora_alpha", "x", r"lora_alpha` \(='x'\) must be a number"),
        ("lora_alpha", float("nan"), r"lora_alpha` \(=nan\)"),
        ("lora_alpha", None, r"lora_alpha` \(=None\)"),
        ("lora_dropout", 7, r"lora_dropout` \(=7\)"),
        ("use_rslora", "yes", r"use_rslora` \(='yes'\)"),
        ("alpha_pattern", [1], r"alpha_pattern` \(=\[1\]\)"),
        ("alpha_pattern", {"query": "x"}, r"alpha_pattern`"),
        ("alpha_pattern", {"(": 3}, "no regular expression"),
        ("modules_to_save", 3, r"modules_to_save` \(=3\)"),
        ("init_lora_weights", 7, r"init_lora_weights` \(=7\)"),
        ("bias", None, r"bias` \(=None\)"),
        ("task_type", "x", "cannot be read as a peft adapter"),
        ("use_dora", True, "without lora_magnitude_vector"),
    ],
)
def test_broken_options_are_refused(option, value, message, tmp_path):
    base = bert(3)
    trained(base, tmp_path / "a")
    config = tmp_path / "a" / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), option: value}))
    refused(base, tmp_path / "a", message)


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "3", "[" * 100_000])
def test_a_config_that_is_no_mapping_is_refused(text, tmp_path):
    base = bert(3)
    trained(base, tmp_path / "a")
    (tmp_path / "a" / "adapter_config.json").write_text(text)
    refused(base, tmp_path / "a", "cannot be read as a peft adapter")


def test_broken_tensors_are_refused(tmp_path):
    base = bert(3)
    trained(base, tmp_path / "a")
    path = tmp_path / "a" / "adapter_model.safetensors"
    state = load_file(path)
    A = next(key for key in state if key.endswith("lora_A.weight"))
    B, head = A.replace("lora_A", "lora_B"), next(key for key in state if "classifier" in key)
    magnitude = A.replace("lora_A.weight", "lora_magnitude_vector")
    for changes, message in (
        ({A: torch.full_like(state[A], float("nan"))}, "finite"),
        ({head: torch.full_like(state[head], float("inf"))}, "finite"),
        ({A: torch.ones_like(state[A], dtype=torch.int32)}, "dtype torch.int32"),
        ({A: torch.ones(4)}, "of another model"),
        ({A: torch.tensor(1.0)}, "of another model"),
        ({A: torch.ones(0, 16), B: torch.ones(16, 0)}, "of another model"),
        ({head: torch.tensor(1.0)}, "has shape"),
        ({magnitude: torch.ones(16)}, "with lora_magnitude_vector"),
    ):
        save_file({**state, **changes}, path)
        refused(base, tmp_path / "a", message)


def test_other_methods_of_peft_are_refused(tmp_path):
    base = bert(3)
    trained(base, tmp_path / "a")
    config = tmp_path / "a" / "adapter_config.json"
    config.write_text(json.dumps({"peft_type": "IA3", "task_type": "SEQ_CLS"}))
    refused(base, tmp_path / "a", "IA3")
