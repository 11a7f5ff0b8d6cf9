"""How many workers a sweep has, and where each runs."""

import os
from pathlib import Path

import psutil
import torch
from omegaconf import DictConfig, OmegaConf

from xlora_bench.runs.console import console
from xlora_bench.runs.provenance import machine
from xlora_bench.sweeps.estimate.sizes import Encoder, encoder_of
from xlora_bench.sweeps.launchers.calibration import Split, Work, calibrated, candidates
from xlora_bench.sweeps.launchers.cores import count_cores, seats, visible_devices
from xlora_bench.sweeps.launchers.workers import Seat

USUAL = Encoder(layers=12, width=768, inner=3072)
"""What a model is taken for whose own config is not at hand."""
GIB = 2**30


def choose_seats(config: DictConfig, *, workers: int | None, threads: int | None, calibrate: bool) -> list[Seat]:
    """Return a seat per worker for the sweep of `config`, and say on one line what was chosen.

    What is given is kept; `OMP_NUM_THREADS` counts as given threads. On GPUs there is a worker per device, else what
    is null is calibrated. Threads never depend on the number of jobs, because a cell's last digits depend on them.

    Raises:
        ValueError: if the threads of all workers would be more than the cores.
    """
    cores = count_cores()
    devices = [] if OmegaConf.select(config, "trainer.accelerator") == "cpu" else visible_devices()
    threads = threads or _threads_of_environment(cores)
    reason = ""
    if devices:
        workers, reason = workers or len(devices), f", GPUs {','.join(devices)}"
    elif workers is None and threads is None and cores > 1:
        split, reason = _calibrated(config, cores=cores) if calibrate else (Split(workers=cores, threads=1), "")
        workers, threads = split.workers, split.threads
    workers = workers if workers is not None else max(1, cores // (threads or cores))
    threads = threads if threads is not None else max(1, cores // max(1, workers))
    chosen = seats(workers, threads, devices=devices)
    line = f"parallel: workers {workers} x threads {threads} on {cores} cores{reason}"
    console().print(line, soft_wrap=True, markup=False, highlight=False)
    return chosen


def _threads_of_environment(cores: int) -> int | None:
    said = os.environ.get("OMP_NUM_THREADS", "")
    return min(int(said), cores) if said.isdecimal() and int(said) > 0 else None


def _calibrated(config: DictConfig, *, cores: int) -> tuple[Split, str]:
    cache_dir = Path(OmegaConf.select(config, "paths.cache_dir") or "~/.cache/xlora_bench").expanduser()
    batch_size = int(OmegaConf.select(config, "task.batch_size") or 32)
    about = {
        "model": OmegaConf.select(config, "model.name"),
        "revision": OmegaConf.select(config, "model.revision"),
        "batch_size": batch_size,
        "cpu": machine()["cpu"],
        "torch": torch.__version__,
        "cores": cores,
    }

    def work() -> tuple[Work, list[int]]:
        encoder = (encoder_of(config.model) if "model" in config else None) or USUAL
        return Work.of_batch(batch_size, width=encoder.width), affordable(cores, encoder=encoder)

    split, path = calibrated(work, about=about, cache_dir=cache_dir)
    rates = ", ".join(f"{cores // int(threads)} x {threads}: {rate:.1f}" for threads, rate in split.rates.items())
    return split, f" (steps per second {rates}; kept in {path})"


def affordable(cores: int, *, encoder: Encoder) -> list[int]:
    """Return the threads per worker to try: those whose workers fit into the memory that is free now.

    A worker is taken to need 1 GiB and three times the fp32 weights of its encoder.
    """
    weights = 4 * encoder.layers * (4 * encoder.width**2 + 2 * encoder.width * encoder.inner)
    room = psutil.virtual_memory().available // (GIB + 3 * weights)
    return [threads for threads in candidates(cores) if cores // threads <= max(1, room)]
