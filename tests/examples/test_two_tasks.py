"""The example of two tasks on one base does what it says."""

import importlib.util
import logging

import pytest
import torch

from tests.helpers.names import CONF

pytestmark = pytest.mark.slow

FILE = CONF.parent / "examples" / "two_tasks.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("two_tasks", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_interleaved_tasks_equal_their_solo_runs_to_the_bit(example, tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="two_tasks"):
        assert example.main(["--rows", "20", "--batch-size", "8", "--cache-dir", str(tmp_path)])
    assert "synth_pair" in caplog.text
    assert "DIFFERS" not in caplog.text


def test_interleaved_mrpc_and_rte_equal_their_solo_runs_to_the_bit(example, glue, tmp_path):
    assert example.main(["--rows", "12", "--batch-size", "4", "--data-dir", str(glue), "--cache-dir", str(tmp_path)])


def test_the_comparison_can_fail(example):
    one = {"lora_A": torch.ones(2)}
    assert example.same(one, {"lora_A": torch.ones(2)})
    assert not example.same(one, {"lora_A": torch.tensor([1.0, 1.0 + 1e-7])})
    assert not example.same(one, {})
