"""What one rank of a run on several devices does: it joins the other ranks, and trains."""

import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from xlora_bench.runs.run import Run
from xlora_bench.runs.sweep_context import enter_sweep
from xlora_bench.system.io import write_atomically
from xlora_bench.system.malloc import keep_freed_memory
from xlora_bench.system.ranks import Ranks
from xlora_bench.training.caches import PROCESS
from xlora_bench.training.callbacks.claim_watch import ClaimWatch
from xlora_bench.training.devices import device_here
from xlora_bench.training.fit import fit
from xlora_bench.training.options import PARTS, checked_part
from xlora_bench.training.prepare import prepare
from xlora_bench.training.rank_processes import HOST, outcome_path
from xlora_bench.training.resolve import request_of

TIMEOUT = timedelta(minutes=30)
"""How long a rank waits for another one; the others may wait for the first rank to open its loggers."""


def work(run: Run, job: Mapping[str, Any]) -> None:
    """Train `run` as one of its ranks; the first one leaves the entries of the record."""
    keep_freed_memory()
    torch.set_num_threads(job["threads"])
    if job["sweep"] is not None:
        folder = job["sweep_folder"]
        enter_sweep(job["sweep"], started=time.time(), folder=None if folder is None else Path(folder))
    ranks = Ranks(rank=job["rank"], world=job["world"])
    with_gpus = device_here(run.config["trainer"].get("accelerator", "auto")) == "cuda"
    if with_gpus:
        torch.cuda.set_device(ranks.rank)
    elif sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # all ranks are here, whatever the host is called
    store = distributed.TCPStore(HOST, job["port"], is_master=False, timeout=TIMEOUT)
    distributed.init_process_group(
        "nccl" if with_gpus else "gloo", store=store, rank=ranks.rank, world_size=ranks.world, timeout=TIMEOUT
    )
    request = request_of(
        run.config,
        {group: checked_part(group, run.config[group]) for group in PARTS},
        choices=run.choices,
        caches=PROCESS,
    )
    init_from, checkpoint = (None if job[name] is None else Path(job[name]) for name in ("init_from", "checkpoint"))
    outcome = fit(
        prepare(
            replace(request, run=run),  # its id has the parent's, if there is one
            init_from=init_from,
            checkpoint=checkpoint,
            callbacks=[ClaimWatch(None, run.progress)] if ranks.is_first else [],
            ranks=ranks,
        )
    )
    if ranks.is_first:
        write_atomically(outcome_path(run), json.dumps(outcome, default=float))
    distributed.destroy_process_group()
