"""Order in which the calls of a launcher are executed, whatever executes them."""

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from hydra.core.utils import JobReturn, JobStatus

from xlora_bench.runs.claim import Claim, HeldError
from xlora_bench.runs.record import RECORD, finished
from xlora_bench.runs.run import claim_path

log = logging.getLogger(__name__)

Call = Callable[[], Any]
POLL_SECONDS = 1.0
"""Time between two looks at the runs that other processes train."""


class WorkerLostError(RuntimeError):
    """The process or the machine that executed a call ended before the call did."""


class Executor(Protocol):
    """Executes calls of `run_in_worker`, at most `slots` at the same time."""

    attempts: int
    """How often a call is tried whose worker dies."""
    waits: bool
    """Whether runs that other processes train are waited for when nothing else is left."""

    @property
    def slots(self) -> int:
        """The number of calls that are executed at the same time."""

    def submit(self, index: int, call: Call) -> None:
        """Begin the call with the number `index`."""

    def wait(self, timeout: float | None) -> Sequence[tuple[int, Any]]:
        """Return (number, `JobReturn` or raised exception) of calls that ended; wait for the first of them.

        After `timeout` seconds (None: no limit) nothing is returned. A `WorkerLostError` lets the call be tried again.
        """

    def close(self) -> None:
        """End everything at once; runs go on from their last whole epoch."""


def run_calls(executor: Executor, calls: Sequence[Call], *, names: Sequence[str]) -> Iterator[tuple[int, Any]]:
    """Yield (index in `calls`, `JobReturn` or raised exception) in the order in which the calls end.

    A call whose worker dies is tried again; the last time its outcome is the `WorkerLostError`. A call that ends in
    a `HeldError` is executed again once its run is free or has a record, after all others; where the executor does not
    wait, it is left out as soon as all holders left are known to be alive.
    """
    lost, waiting, held, running = [0] * len(calls), deque(range(len(calls))), HeldRuns(names), 0
    while waiting or held.runs or running:
        while running < executor.slots:
            if not waiting and (free := held.pop_free()) is not None:
                waiting.append(free)
            if not waiting:
                break
            index = waiting.popleft()
            executor.submit(index, calls[index])
            running += 1
        if not running and not executor.waits and held.are_renewed():
            return
        if held.runs and not waiting and running < executor.slots:
            held.announce()
        for index, outcome in executor.wait(POLL_SECONDS if held.runs else None):
            running -= 1
            error = error_of(outcome)
            if isinstance(error, HeldError):
                held.add(index, error)
                continue
            if isinstance(error, WorkerLostError):
                lost[index] += 1
                log.warning("%s: %s", names[index], error)
                if lost[index] < executor.attempts:
                    waiting.appendleft(index)
                    continue
            yield index, outcome


def error_of(outcome: Any) -> Any:
    """Return the error of a call, or of its job; None if there is none."""
    if isinstance(outcome, JobReturn):
        return None if outcome.status == JobStatus.COMPLETED else outcome._return_value
    return outcome if isinstance(outcome, BaseException) else None


class HeldRuns:
    """The calls whose runs other processes train."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self.runs: dict[int, tuple[HeldError, Claim]] = {}
        self._renewed: dict[int, int] = {}
        self._announced: dict[int, str] = {}

    def add(self, index: int, error: HeldError) -> None:
        """Add a call."""
        known = self.runs.get(index)  # a claim of a dead process on another machine is taken by whoever watches it
        self.runs[index] = (error, known[1] if known else Claim(claim_path(error.folder)))
        self._renewed[index] = renewed(self.runs[index][1])

    def are_renewed(self) -> bool:
        """Whether each holder has renewed its claim since the call was added."""
        return all(renewed(claim) > self._renewed[index] for index, (_, claim) in self.runs.items())

    def pop_free(self) -> int | None:
        """Return a call whose run has a record or is trained by no one, and take it out; None if there is none."""
        for index, (error, claim) in self.runs.items():
            if finished(error.folder / RECORD) is None:
                if not claim.take():
                    continue
                with claim:
                    pass  # the worker takes it
            del self.runs[index]
            return index
        return None

    def announce(self) -> None:
        """Name the runs that are waited for, each once per holder."""
        for index, (error, claim) in self.runs.items():
            if self._announced.get(index) != (holder := claim.holder):
                self._announced[index] = holder
                log.warning("waiting for %s, which is trained by %s", self.names[index] or error.folder.name, holder)


def renewed(claim: Claim) -> int:
    """Return the time of the last renewal of a claim in ns, by the clock of its holder; 0 if there is none."""
    try:
        return claim.path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
