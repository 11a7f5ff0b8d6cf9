"""Pretrained models: dtype, head, dropout, the hash of their weights."""

import pytest
import torch

from tests.helpers.nets import Net
from xlora_bench.models.pretrained import Pretrained, weights_hash
from xlora_bench.nn.layers.quantized_linear import QuantizedLinear, entries

pytestmark = pytest.mark.slow


def test_the_weights_hash_is_of_content_and_base_only():
    net, same = Net(4, 4), Net(4, 4)
    with torch.no_grad():
        same.head.weight.add_(1)
    assert weights_hash(net) == weights_hash(same)
    with torch.no_grad():
        same.body["target"].weight[0, 0] += 1e-6
    assert weights_hash(net) != weights_hash(same)


def test_models_load_in_fp32_with_a_head_from_the_seed_and_dropout_by_option(tmp_path):
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(vocab_size=30, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    BertForSequenceClassification(config).to(torch.bfloat16).save_pretrained(tmp_path)
    before = torch.random.get_rng_state()
    first, second = (Pretrained(name=str(tmp_path), dropout=0.3).load(num_labels=3, seed=seed) for seed in (1, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert {p.dtype for p in first.parameters()} == {torch.float32}
    assert torch.equal(first.classifier.weight, second.classifier.weight)
    assert first.bert.encoder.layer[0].output.dropout.p == 0.3


@pytest.fixture
def folder(tmp_path):
    from transformers import BertConfig, BertForSequenceClassification

    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    BertForSequenceClassification(BertConfig(vocab_size=30, **sizes)).save_pretrained(tmp_path)
    return str(tmp_path)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_base_is_kept_in_the_dtype_and_the_head_in_fp32(folder, dtype):
    plain = Pretrained(name=folder).load(num_labels=3, seed=1).eval()
    model = Pretrained(name=folder, dtype=dtype).load(num_labels=3, seed=1).eval()
    assert {p.dtype for p in model.bert.parameters()} == {getattr(torch, dtype)}
    assert {p.dtype for p in model.classifier.parameters()} == {torch.float32}
    plain.bert.to(getattr(torch, dtype))
    pooled = plain.bert(**INPUT).pooler_output
    logits = model(**INPUT).logits
    assert torch.equal(logits, plain.classifier(pooled.float()))
    logits.sum().backward()
    assert model.classifier.weight.grad.dtype == torch.float32


INPUT = {"input_ids": torch.arange(3, 11).view(2, 4), "attention_mask": torch.ones(2, 4, dtype=torch.long)}


@pytest.mark.parametrize("bits", ["int8", "int4"])
@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_every_linear_layer_of_the_base_is_quantised_and_no_other(folder, bits, dtype):
    plain = Pretrained(name=folder).load(num_labels=3, seed=1).eval()
    model = Pretrained(name=folder, quantization=bits, dtype=dtype).load(num_labels=3, seed=1).eval()
    linear = {name for name, module in plain.bert.named_modules() if isinstance(module, torch.nn.Linear)}
    assert {name for name, module in model.bert.named_modules() if isinstance(module, QuantizedLinear)} == linear
    assert type(model.classifier) is torch.nn.Linear
    assert entries(model) == sum(p.numel() for p in plain.parameters())
    if dtype is not None:
        plain.bert.bfloat16()
    with torch.no_grad():
        for name in linear:
            plain.bert.get_submodule(name).weight.copy_(model.bert.get_submodule(name).weight)
        pooled = plain.bert(**INPUT).pooler_output
        assert torch.equal(model(**INPUT).logits, plain.classifier(pooled.float()))


def test_the_weights_hash_tells_dtypes_and_quantisations(folder):
    kinds = ({}, {"dtype": "bfloat16"}, {"quantization": "int8"}, {"quantization": "int4"})
    hashes = [weights_hash(Pretrained(name=folder, **kind).load(num_labels=3, seed=1)) for kind in kinds]
    assert len(set(hashes)) == len(kinds)
    assert weights_hash(Pretrained(name=folder, dtype="float32").load(num_labels=2, seed=5)) == hashes[0]


def test_an_embedded_model_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"`model.name` \(=embedded/minilm\) needs the extra `embedded`: pip install"):
        Pretrained(name="embedded/minilm").location()
