"""A run on several devices: one process for each, which the process that holds the claim starts and watches."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.distributed import TCPStore

from xlora_bench.runs.run import Run
from xlora_bench.runs.sweep_context import running_sweep, sweep_folder

HOST = "127.0.0.1"
POLL = 0.1
"""Seconds between two looks at the processes."""
CHECK = 5.0
"""Seconds between two looks at the claim."""


class RankError(RuntimeError):
    """A process of a run on several devices failed; the others were ended."""


def fit_in_processes(
    run: Run, *, devices: int, init_from: Path | None, checkpoint: Path | None, check: Callable[[], None]
) -> dict[str, Any]:
    """Prepare and fit `run` in `devices` processes; return the entries of the record.

    Together they have the number of threads of this process. `check` is called every few seconds; its error ends the
    run.

    Raises:
        RankError: if a process raised an error or was killed; it names the first one.
    """
    store = TCPStore(HOST, 0, is_master=True, wait_for_workers=False)  # on a free port
    folder = sweep_folder()
    job = {
        "run": {"id": run.id, "folder": str(run.folder), "config": run.config, "choices": run.choices},
        "number": run.number,
        "world": devices,
        "port": store.port,
        "threads": max(1, torch.get_num_threads() // devices),
        "init_from": None if init_from is None else str(init_from),
        "checkpoint": None if checkpoint is None else str(checkpoint),
        "sweep": running_sweep(),
        "sweep_folder": None if folder is None else str(folder),
    }
    for rank in range(devices):
        failure_path(run, rank).unlink(missing_ok=True)
    outcome_path(run).unlink(missing_ok=True)
    processes: list[subprocess.Popen[str]] = []
    try:
        for rank in range(devices):
            processes.append(start({**job, "rank": rank}))
        wait_for(processes, run, check)
    finally:
        for process in processes:
            process.kill()
            process.wait()
            if process.stdin is not None:
                process.stdin.close()
    outcome: dict[str, Any] = json.loads(outcome_path(run).read_text(encoding="utf-8"))
    return outcome


def start(job: dict[str, Any]) -> "subprocess.Popen[str]":
    """Start the process of one rank: it reads its job from stdin, and ends when stdin is closed, as at our own end."""
    threads = {name: str(job["threads"]) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    command = [sys.executable, "-P", "-m", "xlora_bench.training.rank"]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, env={**os.environ, **threads, "PYTHONPATH": path}, text=True
    )
    assert process.stdin is not None
    try:
        process.stdin.write(f"{json.dumps(job)}\n")
        process.stdin.flush()
    except BrokenPipeError:  # it has ended; `wait_for` says how
        pass
    return process


def wait_for(processes: Sequence["subprocess.Popen[str]"], run: Run, check: Callable[[], None]) -> None:
    """Wait until every process has ended well.

    Raises:
        RankError: as soon as one has not.
    """
    looked = time.monotonic()
    while any(codes := [process.poll() for process in processes]) or None in codes:
        if any(codes):
            raise RankError(reason(run, codes))
        if time.monotonic() >= looked + CHECK:
            check()
            looked = time.monotonic()
        time.sleep(POLL)


def reason(run: Run, codes: Sequence[int | None]) -> str:
    """Return which rank failed first, and how; a rank that loses another one fails, too, but later."""
    world, failed = len(codes), [rank for rank, code in enumerate(codes) if code]
    explained = [rank for rank in failed if failure_path(run, rank).exists()]
    if silent := [rank for rank in failed if rank not in explained]:
        code = codes[silent[0]] or 0
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        advice = "; if memory ran out, lower task.batch_size" if code == -signal.SIGKILL else ""
        return f"the process of rank {silent[0]} of {world} {how}{advice}"
    first = min(explained, key=lambda rank: failure_path(run, rank).stat().st_mtime_ns)
    return f"rank {first} of {world}: {failure_path(run, first).read_text(encoding='utf-8')}"


def outcome_path(run: Run) -> Path:
    """Return the path at which the first rank leaves the entries of the record."""
    return run.checkpoint.with_name("outcome.json")


def failure_path(run: Run, rank: int) -> Path:
    """Return the path at which a rank leaves the error that ended it."""
    return run.checkpoint.with_name(f"failure-{rank}.txt")
