"""The program `xlora-bench` on a machine that seems to have the GPUs that CUDA_VISIBLE_DEVICES names.

Only the process of the sweep takes them for real; its runs train on the CPU.
"""

import os

import torch

from xlora_bench.cli.main import main


def fake_devices() -> None:
    """Let torch count the names in CUDA_VISIBLE_DEVICES."""
    names = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    torch.cuda.device_count = lambda: len(names)


if __name__ == "__main__":
    fake_devices()
    main()
