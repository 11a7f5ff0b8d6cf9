"""Files of a checkpoint on the Hub."""

import socket
import time

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from xlora_bench.models.checkpoint_files import checkpoint_faults
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
