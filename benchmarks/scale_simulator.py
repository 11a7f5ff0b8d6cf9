"""A sweep in Slurm with more GPUs than can be had here: makespan, GPU hours lost, and file operations per second.

    python -m benchmarks.scale_simulator

A discrete-event simulation of `hydra/launcher=slurm`. Each worker walks over the runs as `SlurmWorkerLauncher` does:
its own every W-th run first, then those of the others. It leaves out ended jobs, asks for each other run, leaves it if
another worker holds it, and writes one job file at the end of a run. The operations of each part are those of a real
run (`benchmarks.file_trace`).

A run has ten epochs. Durations are log-normal with mean `--minutes` and sigma 0.5; one run of a hundred takes four
times as long. A GPU fails after an exponential time of mean `--hours`, and is back after five minutes. Its run goes on
from the last whole epoch, in whatever worker comes first; for the 60 s of the lease nobody may take it. A file
operation takes `--ms`; the file system has no limit on operations per second, so `ops/s` is what is asked of it. A
listing counts one operation per 256 names. `ideal` is the GPU time of all runs, divided by the GPUs.

`job files read`: `none` is the program. `all` is what its first version did: at the end of a job, under one lock of the
whole sweep, the worker read the file of each ended job (three operations each) for its progress line.
"""

import heapq
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.options import parser, started
from benchmarks.tables import markdown, publish
from xlora_bench.runs.claim import SECONDS as LEASE
from xlora_bench.sweeps.launchers.slurm import POLL_SECONDS
from xlora_bench.training.callbacks.claim_watch import SECONDS as LOOK

SIZES = ((1_000, 8), (10_000, 100), (100_000, 1_000))
READ = 3.0
"""Operations to read the file of a job."""
NAMES = 256
"""Names that one operation lists."""
FREE, RUNNING, ENDED = 0, 1, 2


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Operations of the parts of a run, and the seconds of one operation, of a skipped and of a held run."""

    run: float = 0.0
    epoch: float = 0.0
    second: float = 0.0
    end: float = 0.0
    per_ended: float = 0.0
    """Of the end of a job, for each job that has ended before."""
    held: float = 0.0
    skip: float = 0.0
    operation: float = 0.0
    skip_seconds: float = 0.0
    held_seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A sweep and where it runs; times in seconds."""

    durations: np.ndarray
    workers: int
    epochs: int = 10
    between_failures: float = math.inf
    restart: float = 300.0
    lease: float = LEASE
    costs: Costs = field(default_factory=Costs)
    seed: int = 0


@dataclass(kw_only=True)
class Outcome:
    """What a simulated sweep took, in seconds of workers; `load` are (start, end, operations)."""

    makespan: float = 0.0
    ideal: float = 0.0
    repeated: float = 0.0
    """Work since the last whole epoch, which a failure has lost."""
    down: float = 0.0
    waiting: float = 0.0
    """At the lock under which jobs end, and for their job files."""
    walking: float = 0.0
    """Over runs that have ended or that others train."""
    idle: float = 0.0
    failures: int = 0
    load: list[tuple[float, float, float]] = field(default_factory=list)


class Simulation:
    """The workers, the runs and the queue of events: (time, worker, what it does then)."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster, self.costs = cluster, cluster.costs
        self.rng = np.random.default_rng(cluster.seed)
        runs = len(cluster.durations)
        self.states = bytearray(runs)
        self.state = np.frombuffer(self.states, dtype=np.uint8)  # the same bytes
        self.whole_epochs = np.zeros(runs, dtype=int)
        self.held_until = np.zeros(runs)
        self.runs, self.left, self.position = runs, runs, [0] * cluster.workers
        self.lock_free, self.driver_free, self.ended = 0.0, 0.0, 0
        self.out = Outcome(ideal=float(cluster.durations.sum()) / cluster.workers)
        self.events = [(0.0, worker, partial(self.walk, worker)) for worker in range(cluster.workers)]
        self.done: list[float] = []

    def outcome(self) -> Outcome:
        """Simulate until all runs have ended and each worker has seen that."""
        while self.events:
            now, _, act = heapq.heappop(self.events)
            act(now)
        self.out.makespan = max(self.lock_free, self.driver_free)
        self.out.idle = sum(max(0.0, self.out.makespan - time) for time in self.done)
        return self.out

    def run_at(self, worker: int, position: Any) -> Any:
        """Return the run at a position, or the runs at several, of the list of a worker: its own, then the others."""
        workers = self.cluster.workers
        own = -(-(self.runs - worker) // workers)
        number = (position - own + worker) % max(1, self.runs - own)
        row, column = number // max(1, workers - 1), number % max(1, workers - 1)
        mine, other = worker + position * workers, row * workers + column + (column >= worker)
        return (
            np.where(position < own, mine, other) if isinstance(position, np.ndarray) else (other, mine)[position < own]
        )

    def skipped(self, worker: int) -> int:
        """Return the number of ended runs from the worker's position to one that has not ended."""
        begin, size = self.position[worker], 16
        while self.left and begin < self.runs:
            positions = np.arange(begin, min(begin + size, self.runs))
            left = self.state[self.run_at(worker, positions)] != ENDED
            if left.any():
                return begin + int(left.argmax()) - self.position[worker]
            begin, size = begin + size, 8 * size
        return self.runs - self.position[worker]

    def at(self, time: float, worker: int, act: "partial[None]") -> None:
        """Let a worker act at a time."""
        heapq.heappush(self.events, (time, worker, act))

    def operations(self, start: float, seconds: float, count: float) -> None:
        """Note operations that are spread over some seconds."""
        if count:
            self.out.load.append((start, start + max(seconds, count * self.costs.operation, 1e-3), count))

    def walk(self, worker: int, now: float) -> None:
        """Go to the next run that has not ended."""
        skipped = self.skipped(worker)
        seconds = skipped * (self.costs.skip_seconds + self.costs.skip * self.costs.operation)
        self.operations(now, seconds, skipped * self.costs.skip)
        self.out.walking += seconds
        self.position[worker] += skipped
        self.at(now + seconds, worker, partial(self.ask, worker))

    def ask(self, worker: int, now: float) -> None:
        """Take the run at the worker's position, or leave it to who holds it."""
        if self.position[worker] >= self.runs:
            self.stop(worker, now)
            return
        run = self.run_at(worker, self.position[worker])
        if self.states[run] == ENDED:
            self.walk(worker, now)
        elif self.states[run] == RUNNING or now < self.held_until[run]:
            seconds = self.costs.held_seconds + self.costs.held * self.costs.operation
            self.operations(now, seconds, self.costs.held)
            self.out.walking += seconds
            self.position[worker] += 1
            self.at(now + seconds, worker, partial(self.ask, worker))
        else:
            self.train(worker, run, now)

    def train(self, worker: int, run: int, now: float) -> None:
        """Train a run from its last whole epoch to its end, or to the failure of the node."""
        self.states[run] = RUNNING
        cluster, before = self.cluster, self.whole_epochs[run]
        epoch = cluster.durations[run] / cluster.epochs
        needed = epoch * (cluster.epochs - before)
        failure = self.rng.exponential(cluster.between_failures) if cluster.between_failures < math.inf else math.inf
        trained = min(needed, failure)
        whole = int(trained // epoch) if trained < needed else cluster.epochs - before
        self.operations(now, trained, trained * self.costs.second + whole * self.costs.epoch + self.costs.run)
        self.whole_epochs[run] += whole
        end = self.fail if failure < needed else self.end
        self.at(now + trained, worker, partial(end, worker, run))
        if failure < needed:
            self.out.repeated += trained - whole * epoch

    def fail(self, worker: int, run: int, now: float) -> None:
        """Free the run after the lease; the worker begins its list again after the restart."""
        self.states[run], self.held_until[run] = FREE, now + self.cluster.lease
        self.out.failures += 1
        self.out.down += self.cluster.restart
        self.position[worker] = 0
        self.at(now + self.cluster.restart, worker, partial(self.walk, worker))

    def end(self, worker: int, run: int, now: float) -> None:
        """Write the job file under the lock of the sweep; the driver reports the job when it comes to it."""
        count = self.costs.end + self.costs.per_ended * self.ended
        seconds = count * self.costs.operation
        begin = max(now, self.lock_free)
        self.lock_free = begin + seconds
        self.driver_free = max(self.lock_free, self.driver_free) + seconds
        self.operations(begin, seconds, count)
        self.operations(self.driver_free - seconds, seconds, count)
        self.out.waiting += self.lock_free - now
        self.at(self.lock_free, worker, partial(self.ended_job, worker, run))
        self.ended += 1

    def ended_job(self, worker: int, run: int, now: float) -> None:
        """Go on behind the run."""
        self.states[run] = ENDED
        self.left -= 1
        self.position[worker] += 1
        self.walk(worker, now)

    def stop(self, worker: int, now: float) -> None:
        """End the worker, unless the run of a failed node is left: that is taken when its lease has run out."""
        stranded = np.flatnonzero(self.state == FREE) if self.left else np.empty(0, dtype=int)
        if len(stranded):
            self.position[worker] = int(np.isin(self.run_at(worker, np.arange(self.runs)), stranded).argmax())
            again = max(now + 1.0, float(self.held_until[stranded].min()))
            self.out.walking += again - now
            self.at(again, worker, partial(self.ask, worker))
        else:
            self.done.append(now)


def loads(load: Sequence[tuple[float, float, float]], *, seconds: float = 10.0) -> tuple[float, float]:
    """Return the mean number of operations per second, and the highest of an interval of so many seconds."""
    start, end, count = np.array(load).T
    times = np.concatenate([start, end])
    order = np.argsort(times, kind="stable")
    rates = np.cumsum(np.concatenate([count / (end - start), -count / (end - start)])[order])
    times = times[order]
    total = np.concatenate([[0.0], np.cumsum(rates[:-1] * np.diff(times))])
    edges = np.arange(0.0, times[-1] + seconds, seconds)
    counts = np.diff(np.interp(edges, times, total))
    return count.sum() / times[-1], counts.max() / seconds


def durations(runs: int, *, mean: float, seed: int) -> np.ndarray:
    """Return log-normal durations, of which one in a hundred is four times as long."""
    rng = np.random.default_rng(seed)
    sigma = 0.5
    slow = np.where(rng.random(runs) < 0.01, 4.0, 1.0)
    drawn = rng.lognormal(-(sigma**2) / 2, sigma, runs) * slow
    return drawn * mean / 1.03


def traced() -> tuple[Costs, pd.DataFrame]:
    """Return the costs of a real run, and its operations by part and kind."""
    traces: list[Mapping[str, Mapping]] = []
    for epochs in (1, 3):
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "trace.json"
            command = [sys.executable, "-m", "benchmarks.file_trace", str(out), str(epochs)]
            subprocess.run(command, check=True, capture_output=True)
            traces.append(json.loads(out.read_text(encoding="utf-8")))
    table = pd.DataFrame({f"{n} {part}": kinds for n, t in enumerate(traces) for part, kinds in t["counts"].items()})
    table = table.fillna(0).T
    last, end = table.loc["0 run 3"], table.loc["0 end 3"]
    epoch = (table.loc["1 run 3"] - last) / 2
    parts = pd.DataFrame(
        {
            "run, without its epochs": last - epoch,
            "epoch": epoch,
            "look of a run at its claim, every 5 s": table.loc["0 look"],
            "renewal of a lease, every 20 s": table.loc["0 renewal"],
            "end of the third job": end,
            "run that another worker holds": table.loc["0 held"],
            "ended job, skipped": table.loc["0 skip"],
            "look of the driver, every 2 s": table.loc["0 poll"],
        }
    ).T
    parts["all"] = parts.sum(axis=1)
    every = dict(zip(("run", "epoch", "look", "renewal", "end", "held", "skip", "poll"), parts["all"], strict=True))
    seconds = traces[0]["seconds"]
    costs = Costs(
        run=every["run"],
        epoch=every["epoch"],
        second=every["look"] / LOOK + every["renewal"] / (LEASE / 3),
        end=every["end"],
        per_ended=READ,
        held=every["held"],
        skip=every["skip"],
        held_seconds=seconds["held"],
    )
    parts = parts.astype(int).rename_axis("part").reset_index()
    return costs, parts


def row(cluster: Cluster, *, reads: str) -> dict[str, object]:
    """Simulate one sweep; return its line of the table."""
    if reads == "none":
        cluster = replace(cluster, costs=replace(cluster.costs, per_ended=0.0))
    out = Simulation(cluster).outcome()
    runs = len(cluster.durations)
    polls = out.makespan / POLL_SECONDS
    out.load.append((0.0, out.makespan, polls * (1 + runs / 2 / NAMES)))
    mean, peak = loads(out.load)
    return {
        "runs": runs,
        "GPUs": cluster.workers,
        "job files read": reads,
        "failures": out.failures,
        "makespan / ideal": out.makespan / out.ideal,
        "ideal, h": out.ideal / 3600,
        "repeated, GPU h": out.repeated / 3600,
        "node down, GPU h": out.down / 3600,
        "end of jobs, GPU h": out.waiting / 3600,
        "walk, GPU h": out.walking / 3600,
        "idle at the end, GPU h": out.idle / 3600,
        "ops/s, mean": mean,
        "ops/s, peak of 10 s": peak,
    }


def breaks_first(frame: pd.DataFrame) -> str:
    """Return what the largest sweep without failures says, in words."""
    reads, counts = (row for _, row in frame[frame["failures"] == 0].tail(2).iterrows())
    return (
        "**What breaks first.** In the first version the end of a job, which read the files of all ended jobs under "
        f"one lock: the sweep of {reads['runs']:,} runs took {reads['makespan / ideal']:.0f} times the ideal time. "
        "A worker counts only its own jobs since, without a lock. What breaks first now is the file system: "
        f"{counts['ops/s, peak of 10 s']:,.0f} operations per second at the peak, when all workers walk over the runs "
        f"of the others ({counts['walk, GPU h']:.0f} GPU hours). The next change would be one listing of the job "
        "files and of the claims for many runs, instead of a look at each. Failures cost little: an epoch and the "
        "restart each."
    )


def main() -> None:
    """Write `scale.md` and `scale.csv`."""
    arguments = parser(__doc__, rounds=1)
    arguments.add_argument("--minutes", type=float, default=10.0, help="mean of a run (%(default)s)")
    arguments.add_argument("--hours", type=float, default=100.0, help="GPU hours between failures (%(default)s)")
    arguments.add_argument("--ms", type=float, default=1.0, help="of a file operation (%(default)s)")
    options = started(arguments)
    costs, parts = traced()
    costs = replace(costs, operation=options.ms / 1e3)
    rows = []
    for runs, workers in SIZES:
        for hours in (math.inf, options.hours):
            for reads in ("all", "none"):
                seconds = durations(runs, mean=60 * options.minutes, seed=0)
                cluster = Cluster(durations=seconds, workers=workers, between_failures=3600 * hours, costs=costs)
                rows.append(row(cluster, reads=reads))
    frame = pd.DataFrame(rows)
    notes = [
        "Command: `python -m benchmarks.scale_simulator`.",
        __doc__.split("\n\n", 2)[2].strip().replace("`--minutes`", f"{options.minutes:g} min"),
        f"To ask for a run that is held takes {1e3 * costs.held_seconds:.2g} ms of CPU, measured in the trace.",
        breaks_first(frame),
        markdown(parts),
    ]
    text = "\n\n".join(notes).replace("`--hours`", f"{options.hours:g} h").replace("`--ms`", f"{options.ms:g} ms")
    publish("scale", frame, title="Scale", notes=text, folder=options.results)


if __name__ == "__main__":
    main()
