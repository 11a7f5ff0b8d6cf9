"""Files of a checkpoint on the Hub."""

import socket
import time

import pytest

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
