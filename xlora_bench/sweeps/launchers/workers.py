"""Pool of persistent worker processes, each with its own cores or device; a dead worker affects only its own job.

Each worker is one process with one pipe. It is forked from a server with the imports done (`start_fork_server`), where
possible, else spawned. The executors of joblib and `concurrent.futures` are not used: they hide which worker has which
job, so that a dead worker breaks the whole pool; loky also replaces a worker whose memory has grown; neither gives each
worker its own cores or device.
"""

import contextlib
import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from typing import Any

import cloudpickle
from hydra.core.utils import env_override

from xlora_bench.sweeps.launchers.schedule import Call, WorkerLostError
from xlora_bench.sweeps.launchers.sent_errors import chained, portable, received

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS", "RAYON_NUM_THREADS")
"""Variables for the number of threads, which numerical libraries read at import."""


def check_runs_per_device(value: object) -> None:
    """Raise a ValueError unless `value` is a number of runs that share a GPU: a whole number of at least 1."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(
            f"`hydra.launcher.runs_per_device` (={value}) must be a whole number of at least 1, the runs that share a "
            "GPU; take its memory divided by that of the largest run"
        )


@dataclass(frozen=True, kw_only=True)
class WorkerSlot:
    """Resources of a worker: `threads`, the `cpus` it is bound to (None: any), its GPU `device` (None: all)."""

    threads: int
    cpus: frozenset[int] | None = None
    device: str | None = None

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables of the worker; in a spawned one they are set before any import."""
        device = {} if self.device is None else {"CUDA_VISIBLE_DEVICES": self.device}
        return {name: str(self.threads) for name in THREADS} | device

    @property
    def context(self) -> BaseContext:
        """Start method: forkserver on Linux without a GPU, else spawn (forks break CUDA and macOS libraries)."""
        forks = self.device is None and sys.platform == "linux"
        return multiprocessing.get_context("forkserver" if forks else "spawn")


def start_fork_server() -> None:
    """Start the fork server, which imports all that a run needs once for all workers; no effect where workers spawn.

    Its numerical libraries run with one thread, because a fork would lose their other threads. It ends with this
    process. Without this call, each worker does its own imports.
    """
    slot = WorkerSlot(threads=1)
    if slot.context.get_start_method() == "forkserver":
        slot.context.set_forkserver_preload(["xlora_bench.sweeps.launchers.preload"])
        with env_override(slot.environment):
            forkserver.ensure_running()


class Worker:
    """A persistent process that computes one call at a time; it ends whenever its parent ends, even when killed."""

    def __init__(self, slot: WorkerSlot) -> None:
        self.slot = slot
        self.connection, theirs = slot.context.Pipe()
        with env_override(slot.environment):
            self._process = slot.context.Process(target=serve, args=(theirs, slot, dict(os.environ)))  # type: ignore[attr-defined]
            self._process.start()
        theirs.close()

    def send(self, call: Call) -> None:
        """Send a call; if the process has ended, `receive` raises the error."""
        with contextlib.suppress(OSError):
            self.connection.send_bytes(cloudpickle.dumps(call))

    def receive(self) -> Any:
        """Wait for the call and return its value.

        Raises:
            WorkerLostError: if the process ended.
            BaseException: the exception of the call, with its causes; the worker's traceback is added as a note.
        """
        try:
            answer = self.connection.recv_bytes()
        except (EOFError, OSError):
            self._process.join()
            raise WorkerLostError(_ending(self._process.exitcode or 0)) from None
        value, errors = pickle.loads(answer)
        if errors:
            raise chained(errors)
        return value

    def close(self) -> None:
        """Kill the process at once; this is safe because runs write their files atomically."""
        self._process.kill()
        self._process.join()
        self.connection.close()


class Pool:
    """Workers on `slots`, started on demand and kept until `close`; an `Executor`."""

    attempts = 2
    waits = True

    def __init__(self, slots: Sequence[WorkerSlot]) -> None:
        self._slots = list(slots)
        self._free = list(reversed(self._slots))
        self._idle: list[Worker] = []
        self._busy: dict[Connection, tuple[Worker, int]] = {}

    @property
    def slots(self) -> int:
        """The number of workers."""
        return len(self._slots)

    def submit(self, index: int, call: Call) -> None:
        """Send a call to a free worker."""
        worker = self._idle.pop() if self._idle else Worker(self._free.pop())
        worker.send(call)
        self._busy[worker.connection] = (worker, index)

    def wait(self, timeout: float | None) -> list[tuple[int, Any]]:
        """Wait until at least one call ends, or for `timeout` seconds; return the values or exceptions by number."""
        ended: list[tuple[int, Any]] = []
        ready = wait(list(self._busy), timeout)
        for connection in [each for each in self._busy if each in ready]:
            worker, index = self._busy.pop(connection)
            self._idle.append(worker)
            try:
                ended.append((index, received(worker.receive())))
            except Exception as error:
                ended.append((index, error))
            if isinstance(ended[-1][1], WorkerLostError):
                self._replace(worker)
        return ended

    def close(self) -> None:
        """Kill all workers."""
        for worker in [*self._idle, *(worker for worker, _ in self._busy.values())]:
            worker.close()
        self._free, self._idle, self._busy = list(reversed(self._slots)), [], {}

    def _replace(self, worker: Worker) -> None:
        self._idle.remove(worker)
        self._free.append(worker.slot)
        worker.close()


def serve(connection: Connection, slot: WorkerSlot, environment: dict[str, str]) -> None:
    """Main loop of a worker process: compute the calls received from `connection` until its other end is closed."""
    if slot.cpus is not None:
        os.sched_setaffinity(0, slot.cpus)
    os.environ.clear()
    os.environ.update(environment)  # a fork server has the environment of its own start
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(slot.threads)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C and ends its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with contextlib.suppress(EOFError):
        while True:
            connection.send_bytes(_answer(connection.recv_bytes()))


def _answer(message: bytes) -> bytes:
    try:
        return cloudpickle.dumps((pickle.loads(message)(), []))
    except BaseException as error:
        return cloudpickle.dumps((None, portable(error)))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _ending(code: int) -> str:
    """Return how a process ended, from its exit code, with advice if it was killed."""
    if code == -signal.SIGKILL:
        return "its process was killed (SIGKILL); if memory ran out, take fewer workers: hydra.launcher.workers=1"
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    return f"its process {how} before the job did"
