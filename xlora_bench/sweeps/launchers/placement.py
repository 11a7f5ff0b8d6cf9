"""Worker placement: the number of workers of a sweep, and the cores and the device of each."""

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
"""Assumed for a model whose config is not on this machine."""
GIB = 2**30


def choose_slots(
    config: DictConfig, *, workers: int | None, threads: int | None, runs_per_device: int = 1
) -> list[WorkerSlot]:
    """Return one slot per worker for the sweep of `config`, and print the choice in one line.

    `threads` None means 1, because the last digits of a run depend on the number of threads, so it must not vary with
    the machine. `workers` None means `runs_per_device` per GPU, or without GPUs as many as cores and free memory allow.
    A run with `trainer.devices=2` has two GPUs, or else two threads. The pool starts workers on demand, so there are
    never more than runs.

    Raises:
        ValueError: if `slots` refuses a number, `runs_per_device` above 1 has no GPU, or a GPU would get more workers.
    """
    cores = count_cores()
    devices = [] if OmegaConf.select(config, "trainer.accelerator") == "cpu" else visible_devices()
    per_run = OmegaConf.select(config, "trainer.devices") or 1
    groups = [",".join(devices[first : first + per_run]) for first in range(0, len(devices) - per_run + 1, per_run)]
    threads = (1 if devices else per_run) if threads is None else threads
    if runs_per_device > 1 and not devices:
        raise ValueError(
            f"`hydra.launcher.runs_per_device` (={runs_per_device}) needs a GPU, and these runs have none: "
            "leave it out, and set workers"
        )
    room = len(groups) * runs_per_device
    if workers is None:
        carried = min(cores // max(1, threads), workers_in_memory(config))
        workers = room or max(1, carried)
    elif groups and workers > room:
        gpus = f"{len(groups)} GPUs" if per_run == 1 else f"{len(groups)} groups of {per_run} GPUs"
        raise ValueError(
            f"`hydra.launcher.workers` (={workers}) must be at most {gpus} x "
            f"`hydra.launcher.runs_per_device` (={runs_per_device}); for more runs on a GPU, set runs_per_device"
        )
    chosen = slots(workers, threads, devices=groups)
    on = f"{cores} cores" + (f", GPUs {','.join(devices)}" if devices else "")
    on += f" with at most {runs_per_device} runs each" if runs_per_device > 1 else ""
    on += "; the workers share the cores" if workers > cores else ""
    line = f"parallel: at most {workers} workers x {threads} threads on {on}"
    console().print(line, soft_wrap=True, markup=False, highlight=False)
    return chosen


def workers_in_memory(config: DictConfig) -> int:
    """Return the number of workers that fit into free memory, each with 1 GiB + 3 x the encoder's fp32 weights."""
    encoder = (encoder_of(config.model) if "model" in config else None) or USUAL
    weights = 4 * encoder.layers * (4 * encoder.width**2 + 2 * encoder.width * encoder.inner)
    return int(psutil.virtual_memory().available // (GIB + 3 * weights))


def slots(workers: int, threads: int, *, devices: list[str]) -> list[WorkerSlot]:
    """Return one slot per worker; workers are bound to disjoint cores only if together they use every core.

    Otherwise the operating system places them, because it knows which cores other programs leave free. With GPUs,
    workers of one thread may be more than the cores: most of the time they wait for the GPU.

    Raises:
        ValueError: if a number is below 1, or more threads would run than there are cores.
    """
    cores = count_cores()
    for name, value in (("workers", workers), ("threads", threads)):
        if value < 1:
            raise ValueError(f"`hydra.launcher.{name}` (={value}) must be at least 1, or null to have it chosen")
    if workers * threads > cores and (threads > 1 or not devices):
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
    """Return the number of physical cores in this process's affinity, at most the CPU quota of its container."""
    physical = _physical_cores()
    return min(joblib.cpu_count(), len(physical)) if physical else joblib.cpu_count(only_physical_cores=True)


def visible_devices() -> list[str]:
    """Return the ids of the GPUs, as `CUDA_VISIBLE_DEVICES` names them."""
    import torch  # noqa: PLC0415 - slow to import

    count = torch.cuda.device_count()
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return (named or [str(index) for index in range(count)])[:count]


def _physical_cores() -> list[frozenset[int]]:
    """Return the usable CPUs of each physical core; empty on a system without CPU affinity."""
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
