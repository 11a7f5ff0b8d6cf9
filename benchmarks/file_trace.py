"""File operations of runs in their results folder, counted in this process.

    python -m benchmarks.file_trace COUNTS.json EPOCHS

Trains four tiny runs in one sweep and writes the counts of each part as JSON. Counted are Python's audit events with a
path below the folder, and the calls of `os.stat`, `os.lstat` and `os.fsync`. Files that C++ or Rust code opens are not
seen: three per run (adapters, predictions). Reads and writes of open files are not counted.
"""

import json
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import wraps
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from benchmarks.runs import TINY, paths, run
from xlora_bench.runs import claim as claims
from xlora_bench.runs.claim import Claim
from xlora_bench.sweeps.launchers import launcher, schedule
from xlora_bench.sweeps.launchers.slurm import read_new
from xlora_bench.sweeps.launchers.slurm_worker import UnlessEnded
from xlora_bench.sweeps.reporting.callback import SweepReport
from xlora_bench.training.callbacks.claim_watch import ClaimWatch

EVENTS = {
    "open": "open",
    "os.rename": "rename",
    "os.remove": "remove",
    "os.mkdir": "mkdir",
    "os.rmdir": "remove",
    "os.link": "link",
    "os.listdir": "list",
    "os.scandir": "list",
    "os.utime": "utime",
}
CALLS = {"stat": "stat", "lstat": "stat", "fsync": "sync"}
"""Functions of `os` without an audit event."""
RUNS = 4
EARLIER = 1000
"""Ended jobs in the folder that the cost of a skipped job and of a look of the driver is counted in."""


class Trace:
    """Counts of operations below `folder`, by the part that was entered last."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.parts = str(folder), []
        self.counts: dict[str, Counter[str]] = {}
        self.seconds: dict[str, list[float]] = {}
        sys.addaudithook(self._hook)
        for name, kind in CALLS.items():
            setattr(os, name, self._counted(getattr(os, name), kind))

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count what happens in this block under `name`, and measure its CPU seconds."""
        self.parts.append(name)
        started = time.process_time()
        try:
            yield
        finally:
            self.seconds.setdefault(name, []).append(time.process_time() - started)
            self.parts.pop()

    def _count(self, kind: str, path: Any) -> None:
        if not self.parts or not isinstance(path, str | bytes | os.PathLike | int):
            return
        with mock.patch.object(self, "parts", []):
            name = os.readlink(f"/proc/self/fd/{path}") if isinstance(path, int) else os.path.abspath(os.fsdecode(path))
        if name.startswith(self.folder):
            self.counts.setdefault(self.parts[-1], Counter())[kind] += 1

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in EVENTS:
            self._count(EVENTS[event], arguments[0])

    def _counted(self, function: Callable[..., Any], kind: str) -> Callable[..., Any]:
        @wraps(function)
        def counted(path: Any, *args: Any, **kwargs: Any) -> Any:
            self._count(kind, path)
            return function(path, *args, **kwargs)

        return counted


def main() -> None:
    """Trace a sweep of tiny runs, then the parts that depend on time or on other workers."""
    out, epochs = Path(sys.argv[1]), int(sys.argv[2])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve() / "results"
        trace = Trace(folder)
        sweep(trace, folder, epochs)
        small_parts(trace, folder)
    seconds = {part: statistics.median(values) for part, values in trace.seconds.items()}
    seconds["held"] = max(trace.seconds["held"])  # the other is that of its end
    out.write_text(json.dumps({"counts": trace.counts, "seconds": seconds}))


def sweep(trace: Trace, folder: Path, epochs: int) -> None:
    """Train the runs one after another; another holder has the claim of the last one when it is first asked for."""
    run_one, on_job_end, take, add = launcher.run_one, SweepReport.on_job_end, Claim.take, schedule.HeldRuns.add
    compose = launcher.Calls.__getitem__
    calls: list[int] = []
    other: list[Claim] = []

    def traced_run(sweep_of_run: Any, config: Any) -> Any:
        calls.append(1)
        with trace.part("held" if len(calls) == RUNS else f"run {len(calls)}"):
            return run_one(sweep_of_run, config)

    def traced_end(self: SweepReport, *args: Any, **kwargs: Any) -> None:
        with trace.part("held" if len(calls) == RUNS else f"end {len(calls)}"):
            on_job_end(self, *args, **kwargs)

    def traced_take(self: Claim) -> bool:
        if len(calls) == RUNS and not other:
            other.append(Claim(self.path))
            with trace.part("-"):
                take(other[0])
        return take(self)

    def released(self: schedule.HeldRuns, *args: Any) -> None:
        add(self, *args)
        other[0].__exit__()

    def traced_compose(self: launcher.Calls, index: int) -> Any:
        with trace.part("compose"):
            return compose(self, index)

    with ExitStack() as patches:
        for owner, attribute, function in (
            (launcher, "run_one", traced_run),
            (launcher.Calls, "__getitem__", traced_compose),
            (SweepReport, "on_job_end", traced_end),
            (Claim, "take", traced_take),
            (schedule.HeldRuns, "add", released),
        ):
            patches.enter_context(mock.patch.object(owner, attribute, function))
        seeds = ",".join(str(seed) for seed in range(RUNS))
        own = [word for word in TINY if not word.startswith("trainer.max_epochs")]
        words = ["-m", *own, f"trainer.max_epochs={epochs}", f"seed={seeds}", "hydra/launcher=serial", *paths(folder)]
        with suppress(SystemExit):  # so few rows collapse
            run(words)


def small_parts(trace: Trace, folder: Path) -> None:
    """Count a renewal of a lease, a look of a run at its claim, a skipped job, and a look of the driver."""
    with mock.patch.object(claims, "SECONDS", 0.6):
        claim = Claim(folder / "claims" / "traced")
        claim.take()
        with trace.part("renewal"):
            time.sleep(0.3)  # a third of it passes between renewals
        trainer: Any = SimpleNamespace(estimated_stepping_batches=1, current_epoch=0, global_step=0)
        with trace.part("look"):
            ClaimWatch(claim, folder / "progress.json")._look(trainer)
        claim.__exit__()
    jobs = folder / "slurm" / "jobs"
    jobs.mkdir(parents=True)
    for number in range(EARLIER):
        (jobs / f"{number}.json").touch()
    call: Any = SimpleNamespace(number=0)
    with trace.part("skip"):
        UnlessEnded([], folder=jobs).submit(0, call)
    with trace.part("poll"):
        read_new(jobs, {})


if __name__ == "__main__":
    main()
