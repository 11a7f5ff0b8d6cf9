"""Provenance of a number: code, package versions and machine. No user or host name."""

import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
import torch

ROOT = Path(__file__).resolve().parents[2]
NUMERICS = 6
"""Version of the numerics (order of sums, random draws). Raise it when the same run gets other digits."""
PACKAGES = (
    "xlora-bench",
    "torch",
    "transformers",
    "tokenizers",
    "datasets",
    "peft",
    "lightning",
    "hydra-core",
    "omegaconf",
    "safetensors",
    "numpy",
    "pandas",
    "scipy",
    "scikit-learn",
    "wandb",
)


@cache
def code() -> dict[str, Any]:
    """Return the git `commit` of the source checkout, and `dirty`: whether code or configs differ from it.

    Both are None for an installed package, even if it is installed inside another git repository.
    """
    unknown = {"commit": None, "dirty": None}
    if not (ROOT / ".git").exists():
        return unknown
    commit = _git("rev-parse", "HEAD")
    changes = _git("status", "--porcelain", "--", "xlora_bench", "conf")
    if commit is None or changes is None:
        return unknown
    return {"commit": commit, "dirty": bool(changes)}


@cache
def versions() -> dict[str, str | None]:
    """Return the versions of Python and of the packages that can change a number (None: not installed)."""
    return {
        "numerics": str(NUMERICS),
        "python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
    }


def machine() -> dict[str, Any]:
    """Return CPU name, physical cores, threads of torch, memory in bytes, GPU names and platform."""
    return {
        "cpu": _cpu(),
        "cores": psutil.cpu_count(logical=False),
        "threads": torch.get_num_threads(),
        "memory_bytes": psutil.virtual_memory().total,
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        "platform": platform.platform(),
    }


def _git(*arguments: str) -> str | None:
    command = ["git", "-C", str(ROOT), *arguments]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@cache
def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
