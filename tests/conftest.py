"""Shared by all tests: one thread, no network, and the folder of real data."""

import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "offline")

import pytest
import torch

from tests.names import CONF

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def glue() -> Path:
    """Return the folder of real GLUE data, or skip."""
    folder = Path(os.environ.get("XLORA_BENCH_GLUE", CONF.parents[1] / "shared" / "glue"))
    if not folder.is_dir():
        pytest.skip(f"no real GLUE data in {folder} (set XLORA_BENCH_GLUE)")
    return folder


ROOT = Path(__file__).parent

SLOW = {
    *("test_bad_input.py", "test_budget.py", "test_train.py", "test_warm.py", "test_seed_defects.py"),
    *("examples", "exchange", "layers/test_compile.py", "layers/test_models.py", "layers/test_parallel.py"),
    *("packing/test_forward.py", "results/test_paper_configs.py", "results/test_papers_run.py"),
    *("results/test_figures.py", "results/test_sweep.py", "results/test_trust.py", "results/test_verify.py"),
    *("results/statistics", "sweeps/test_finding.py", "sweeps/test_launcher.py", "sweeps/test_start_from.py"),
    *("sweeps/test_sweeper.py", "sweeps/test_workers.py", "tasks/test_tokenize.py", "tasks/test_synthetic.py"),
    *("test_memory.py", "test_small_parts.py", "named/test_files.py", "results/comparison", "results/test_main.py"),
    *("results/test_selection.py", "sweeps/test_dry_run.py", "adapters/test_parity_with_peft.py"),
}
"""Files and folders of tests that train, start processes or simulate: `make test-quick` leaves them out."""


def pytest_collection_modifyitems(items):
    """Mark slow tests; of the conformance suite all but linear layers in fp32."""
    for item in items:
        path = item.path.relative_to(ROOT)
        conformance = path.name == "test_conformance.py" and not item.name.endswith("-linear-fp32]")
        if conformance or {str(path), str(path.parent), path.parts[0]} & SLOW:
            item.add_marker(pytest.mark.slow)
