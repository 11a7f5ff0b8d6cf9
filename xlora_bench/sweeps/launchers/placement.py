"""Worker placement: how many workers a sweep has, and on which cores and devices each runs."""

import os
from pathlib import Path

import joblib
import psutil
from omegaconf import DictConfig, OmegaConf

from xlora_bench.runs.console import console
from xlora_bench.sweeps.estimate.sizes import Encoder, encoder_of
from xlora_bench.sweeps.launchers.workers import WorkerSlot

TOPOLOGY = Path("/sys/devices/system/cpu")
USUAL = Encoder(layers=12, width=768, inner=3072)
"""What a model is taken for whose own config is not at hand."""
GIB = 2**30


def choose_slots(config: DictConfig, *, workers: int | None, threads: int | None) -> list[WorkerSlot]:
    """Return a slot per worker for the sweep of `config`, and print one line that says what was chosen.

    `threads` None is 1: it must not depend on the machine or the number of runs, because a run's last digits depend on
    it. `workers` None is one per GPU, or else as many as the cores and the free memory carry. The pool starts a worker
    when there is a run for it, so never more than there are runs.

    Raises:
        ValueError: if a number is below 1, or more threads would run than there are cores.
    """
    cores = count_cores()
    devices = [] if OmegaConf.select(config, "trainer.accelerator") == "cpu" else visible_devices()
    threads = 1 if threads is None else threads
    if workers is None:
        carried = min(cores // max(1, threads), workers_in_memory(config))
        workers = len(devices) or max(1, carried)
    chosen = slots(workers, threads, devices=devices)
    on = f"{cores} cores" + (f", GPUs {','.join(devices)}" if devices else "")
    line = f"parallel: at most {workers} workers x {threads} threads on {on}"
    console().print(line, soft_wrap=True, markup=False, highlight=False)
    return chosen


def workers_in_memory(config: DictConfig) -> int:
    """Return how many workers fit into the free memory, each with 1 GiB and three times its encoder's fp32 weights."""
    encoder = (encoder_of(config.model) if "model" in config else None) or USUAL
    weights = 4 * encoder.layers * (4 * encoder.width**2 + 2 * encoder.width * encoder.inner)
    return int(psutil.virtual_memory().available // (GIB + 3 * weights))


def slots(workers: int, threads: int, *, devices: list[str]) -> list[WorkerSlot]:
    """Return a slot per worker; they are bound to disjoint cores only if together they fill all of them.

    Otherwise the system places them: it knows which cores other programs, or another sweep, leave free.

    Raises:
        ValueError: if a number is below 1, or more threads would run than there are cores.
    """
    cores = count_cores()
    for name, value in (("workers", workers), ("threads", threads)):
        if value < 1:
            raise ValueError(f"`hydra.launcher.{name}` (={value}) must be at least 1, or null to have it chosen")
    if workers * threads > cores:
        raise ValueError(
            f"`hydra.launcher.workers` x `hydra.launcher.threads` (={workers} x {threads}) must be at most the {cores} "
            "cores of this process: more threads than cores make every run slower; leave one of them null"
        )
    physical = _physical_cores()
    bound = workers * threads == len(physical)
    return [
        WorkerSlot(
            threads=threads,
            cpus=frozenset().union(*physical[index * threads : (index + 1) * threads]) if bound else None,
            device=devices[index % len(devices)] if devices else None,
        )
        for index in range(workers)
    ]


def count_cores() -> int:
    """Return the physical cores that this process may use: of its affinity, within its container's quota."""
    physical = _physical_cores()
    return min(joblib.cpu_count(), len(physical)) if physical else joblib.cpu_count(only_physical_cores=True)


def visible_devices() -> list[str]:
    """Return the GPUs as `CUDA_VISIBLE_DEVICES` names them."""
    import torch  # noqa: PLC0415 - slow to import

    count = torch.cuda.device_count()
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return (named or [str(index) for index in range(count)])[:count]


def _physical_cores() -> list[frozenset[int]]:
    """Return the usable CPUs of each physical core; empty where the system has no affinity."""
    if not hasattr(os, "sched_getaffinity"):
        return []
    usable = os.sched_getaffinity(0)
    return sorted({_siblings(cpu) & usable for cpu in usable}, key=min)


def _siblings(cpu: int) -> frozenset[int]:
    """Return the CPUs (hardware threads) on the core of `cpu`."""
    try:
        text = (TOPOLOGY / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text(encoding="ascii")
    except OSError:
        return frozenset({cpu})
    ranges = [part.partition("-") for part in text.strip().split(",")]
    return frozenset({cpu}.union(*(range(int(first), int(last or first) + 1) for first, _, last in ranges)))
