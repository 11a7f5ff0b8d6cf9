"""Run the command line in this process or as a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

SMALL = (
    "task=synth_single",
    "task.max_train_rows=48",
    "task.max_eval_rows=32",
    "task.batch_size=16",
    "trainer.max_epochs=2",
    "optimizer.lr=3e-3",
)


def command(folder: Path, *arguments: str, module: str = "xlora_bench") -> list[str]:
    """Return the command line of the main job with its results in `folder`."""
    paths = (f"paths.results_dir={folder}", f"paths.cache_dir={folder / 'cache'}")
    return [sys.executable, "-m", module, *arguments, *paths]


def run(
    folder: Path, *arguments: str, module: str = "xlora_bench", threads: int = 1
) -> subprocess.CompletedProcess[str]:
    """Run the main job to its end."""
    env = os.environ | {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "COLUMNS": "160"}
    return subprocess.run(
        command(folder, *arguments, module=module), capture_output=True, text=True, env=env, timeout=300, check=False
    )


def records(folder: Path) -> list[dict]:
    """Return the records below `folder`, by adapter and seed."""
    found = [json.loads(path.read_text()) for path in (folder / "runs").glob("*/record.json")]
    return sorted(found, key=lambda record: (record["choices"]["adapter"], record["seed"]))
