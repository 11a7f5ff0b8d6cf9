"""Which cores and devices there are, and how workers share them."""

import os
from pathlib import Path

import joblib

from xlora_bench.sweeps.launchers.workers import Seat

TOPOLOGY = Path("/sys/devices/system/cpu")


def count_cores() -> int:
    """Return the physical cores that this process may use: of its affinity, within its container's quota."""
    physical = _physical_cores()
    return min(joblib.cpu_count(), len(physical)) if physical else joblib.cpu_count(only_physical_cores=True)


def seats(workers: int, threads: int, *, devices: list[str]) -> list[Seat]:
    """Return a seat per worker; they are bound to disjoint cores only if together they fill all of them.

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
            "cores of this process: more threads than cores make every cell slower; leave one of them null"
        )
    physical = _physical_cores()
    bound = workers * threads == len(physical)
    return [
        Seat(
            threads=threads,
            cpus=frozenset().union(*physical[place * threads : (place + 1) * threads]) if bound else None,
            device=devices[place % len(devices)] if devices else None,
        )
        for place in range(workers)
    ]


def visible_devices() -> list[str]:
    """Return the GPUs as `CUDA_VISIBLE_DEVICES` names them."""
    import torch  # noqa: PLC0415 - slow to import

    count = torch.cuda.device_count()
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return (named or [str(place) for place in range(count)])[:count]


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
