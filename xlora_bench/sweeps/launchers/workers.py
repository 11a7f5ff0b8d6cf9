"""Worker processes that stay, on cores of their own: one that dies takes its own job with it and no other.

A standard process and a pipe per worker: forked from a server that has imported what a run needs, where that can be
(`start_fork_server`), else spawned. The executors of joblib and `concurrent.futures` hide which worker
has which job: a dead worker breaks the whole pool there, loky also replaces a worker whose memory has grown, and
neither gives each worker its own cores or device.
"""

import contextlib
import itertools
import logging
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from typing import Any

import cloudpickle
from hydra.core.utils import env_override

log = logging.getLogger(__name__)

Call = Callable[[], Any]
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS", "RAYON_NUM_THREADS")
"""What numerical libraries read when they are imported."""
ATTEMPTS = 2


class WorkerLostError(RuntimeError):
    """The process of a job ended before the job did."""


@dataclass(frozen=True, kw_only=True)
class WorkerSlot:
    """Where a worker runs: its `threads`, the `cpus` it is bound to (None: any), its GPU (None: those there are)."""

    threads: int
    cpus: frozenset[int] | None = None
    device: str | None = None

    @property
    def environment(self) -> dict[str, str]:
        """What a worker has in its environment; in one that is spawned, before anything is imported."""
        device = {} if self.device is None else {"CUDA_VISIBLE_DEVICES": self.device}
        return {name: str(self.threads) for name in THREADS} | device

    @property
    def context(self) -> BaseContext:
        """How its worker starts: what uses a GPU must not be forked, and macOS's own libraries cannot be."""
        forks = self.device is None and sys.platform == "linux"
        return multiprocessing.get_context("forkserver" if forks else "spawn")


def start_fork_server() -> None:
    """Let the server from which workers are forked import what a run needs, once for all of them, from now on.

    Its numerical libraries have no threads of their own, which would be lost in a fork; it ends with this process.
    Without it each worker imports for itself. Nothing is done where workers are spawned.
    """
    slot = WorkerSlot(threads=1)
    if slot.context.get_start_method() == "forkserver":
        slot.context.set_forkserver_preload(["xlora_bench.sweeps.launchers.preload"])
        with env_override(slot.environment):
            forkserver.ensure_running()


class Worker:
    """A process that computes one call at a time and stays; it ends with its parent, however that ends."""

    def __init__(self, slot: WorkerSlot) -> None:
        self.slot = slot
        self.connection, theirs = slot.context.Pipe()
        with env_override(slot.environment):
            self._process = slot.context.Process(target=serve, args=(theirs, slot, dict(os.environ)))  # type: ignore[attr-defined]
            self._process.start()
        theirs.close()

    def send(self, call: Call) -> None:
        """Send a call; if the process is gone, `receive` says so."""
        with contextlib.suppress(OSError):
            self.connection.send_bytes(cloudpickle.dumps(call))

    def receive(self) -> Any:
        """Return what the call returned.

        Raises:
            WorkerLostError: if the process ended.
            BaseException: what the call raised, with its causes; its traceback is a note.
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
        """End the process at once; what runs leave behind is whole at every moment."""
        self._process.kill()
        self._process.join()
        self.connection.close()


class Pool:
    """Workers on `slots`, started when there is a job for them and kept until `close`."""

    def __init__(self, slots: Sequence[WorkerSlot]) -> None:
        self.slots = list(slots)
        self._free = list(reversed(self.slots))
        self._idle: list[Worker] = []
        self._busy: dict[Connection, tuple[Worker, int]] = {}

    def run(self, calls: Sequence[Call], *, names: Sequence[str]) -> Iterator[tuple[int, Any]]:
        """Yield (index in `calls`, value or the exception that it raised) as the calls end.

        A call whose worker dies is tried once more in a new worker, and is a `WorkerLostError` then.
        """
        lost = [0] * len(calls)
        waiting = list(reversed(range(len(calls))))
        while waiting or self._busy:
            while waiting and len(self._busy) < len(self.slots):
                self._start(waiting.pop(), calls)
            for index, outcome in self._ended():
                if isinstance(outcome, WorkerLostError):
                    lost[index] += 1
                    log.warning("%s: %s", names[index], outcome)
                    if lost[index] < ATTEMPTS:
                        waiting.append(index)
                        continue
                yield index, outcome

    def close(self) -> None:
        """End all workers at once."""
        for worker in [*self._idle, *(worker for worker, _ in self._busy.values())]:
            worker.close()
        self._free, self._idle, self._busy = list(reversed(self.slots)), [], {}

    def _start(self, index: int, calls: Sequence[Call]) -> None:
        worker = self._idle.pop() if self._idle else Worker(self._free.pop())
        worker.send(calls[index])
        self._busy[worker.connection] = (worker, index)

    def _ended(self) -> Iterable[tuple[int, Any]]:
        """Wait until a call ends; return those that have, their workers being ready for the next."""
        ended: list[tuple[int, Any]] = []
        ready = wait(list(self._busy))
        for connection in [each for each in self._busy if each in ready]:
            worker, index = self._busy.pop(connection)
            self._idle.append(worker)
            try:
                ended.append((index, worker.receive()))
            except Exception as error:
                ended.append((index, error))
            if isinstance(ended[-1][1], WorkerLostError):
                self._replace(worker)
        return ended

    def _replace(self, worker: Worker) -> None:
        self._idle.remove(worker)
        self._free.append(worker.slot)
        worker.close()


def serve(connection: Connection, slot: WorkerSlot, environment: dict[str, str]) -> None:
    """Compute what comes through `connection`, in the process of a worker, until the other end is closed."""
    if slot.cpus is not None:
        os.sched_setaffinity(0, slot.cpus)
    os.environ.clear()
    os.environ.update(environment)  # a fork server has that of its start
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(slot.threads)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with contextlib.suppress(EOFError):
        while True:
            connection.send_bytes(_answer(connection.recv_bytes()))


def portable(error: BaseException) -> list[BaseException]:
    """Return `error` and its causes as exceptions that survive pickling, the traceback as a note of the first."""
    text = "".join(traceback.format_exception(error))
    causes: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None:
        causes.append(_portable(cause))
        cause = cause.__cause__
    causes[0].add_note(f"In a worker process:\n{text}")
    return causes


def chained(errors: Sequence[BaseException]) -> BaseException:
    """Return the first of `errors`, each caused by the next."""
    for error, cause in itertools.pairwise(errors):
        error.__cause__ = cause
    return errors[0]


def _portable(error: BaseException) -> BaseException:
    try:
        copy: BaseException = pickle.loads(cloudpickle.dumps(error))
        if isinstance(copy, type(error)) and str(copy) == str(error):
            return copy
    except Exception:
        log.debug("an exception of type %s cannot be sent", type(error))
    return RuntimeError(f"{type(error).__name__}: {error}")


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
    """Return how a process ended, from its exit code, and what may help."""
    if code == -signal.SIGKILL:
        return "its process was killed (SIGKILL); if memory ran out, take fewer workers: hydra.launcher.workers=1"
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    return f"its process {how} before the job did"
