"""Shared by all tests: one thread, no network, and the folder of real data."""

import logging
import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "offline")

import pytest
import torch

from tests.helpers.names import CONF

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def glue() -> Path:
    """Return the folder of real GLUE data, or skip."""
    folder = Path(os.environ.get("XLORA_BENCH_GLUE", CONF.parents[1] / "shared" / "glue"))
    if not folder.is_dir():
        pytest.skip(f"no real GLUE data in {folder} (set XLORA_BENCH_GLUE)")
    return folder


def pytest_collection_modifyitems(items):
    """`make test-quick` has of the conformance suite the linear layers in fp32; clusters are only for those who ask."""
    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no GPU is here"))
        if item.get_closest_marker("cluster") and os.environ.get("XLORA_BENCH_CLUSTER") != "1":
            item.add_marker(pytest.mark.skip(reason="starts a cluster on this machine (set XLORA_BENCH_CLUSTER=1)"))
        if item.path.name == "test_conformance.py" and not item.name.endswith("-linear-fp32]"):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def own_log_handlers():
    """Remove the handlers that Hydra leaves at the root logger: their streams are closed at the end of the test."""
    root = logging.getLogger()
    before = list(root.handlers)
    yield
    root.handlers[:] = [one for one in root.handlers if one in before or type(one).__module__.startswith("_pytest")]
