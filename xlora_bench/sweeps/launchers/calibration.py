"""How to split the cores between cells and threads: measured once per machine and kind of work."""

import hashlib
import json
import logging
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

from xlora_bench.sweeps.launchers.workers import Seat, Worker
from xlora_bench.system.io import write_atomically

log = logging.getLogger(__name__)

VERSION = 1  # raise it when the measurement changes
ROUNDS, SECONDS, BUDGET = 3, 0.35, 6.0
"""Rounds of so many seconds per split; none is begun after the budget, in seconds, is spent."""
TIE = 0.05
"""Splits closer than this are equal; the one with more workers wins: between its steps a cell runs on one thread."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """A training step like those of the sweep: an encoder layer of `width` on `rows` packed rows of 64 tokens."""

    width: int
    rows: int

    @classmethod
    def of_batch(cls, batch_size: int, *, width: int) -> "Work":
        """Return the work of a batch of sentences with about 16 tokens each."""
        return cls(width=width, rows=math.ceil(batch_size / 4))


@dataclass(frozen=True, kw_only=True)
class Split:
    """`workers` processes of `threads` threads; `rates` are the steps per second of all workers, by threads."""

    workers: int
    threads: int
    rates: dict[str, float] = field(default_factory=dict)


def calibrated(
    work: Callable[[], tuple[Work, list[int]]], *, about: dict[str, Any], cache_dir: Path
) -> tuple[Split, Path]:
    """Return the best split of `about["cores"]` cores, and the file in which it is kept.

    It is measured, on the work and the threads per worker that `work` returns, unless that was done for the same
    `about`.
    """
    about = {**about, "version": VERSION}
    name = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
    path = cache_dir / "calibration" / f"{name}.json"
    split = _read(path)
    if split is None:
        step, threads = work()
        split = best_split(measure(step, cores=about["cores"], threads=threads), cores=about["cores"])
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps({"split": asdict(split), **about}, indent=1) + "\n")
    return split, path


def best_split(rates: dict[int, float], *, cores: int) -> Split:
    """Return the split with the fewest threads whose rate is within `TIE` of the best."""
    fast = (1 - TIE) * max(rates.values())
    threads = min(threads for threads, rate in rates.items() if rate >= fast)
    rounded = {str(threads): round(rate, 2) for threads, rate in rates.items()}
    return Split(workers=cores // threads, threads=threads, rates=rounded)


def candidates(cores: int) -> list[int]:
    """Return the threads per worker that are tried: the powers of two, and all cores."""
    return sorted({2**power for power in range(cores.bit_length()) if 2**power <= cores} | {cores})


def measure(work: Work, *, cores: int, threads: list[int]) -> dict[int, float]:
    """Return the steps per second of all workers together, by threads per worker: medians of interleaved rounds."""
    started = time.perf_counter()
    workers = [Worker(Seat(threads=cores)) for _ in range(cores // min(threads))]
    try:
        _together(workers, partial(steps_per_second, work, threads=1, seconds=0.0))
        rounds: dict[int, list[float]] = {each: [] for each in threads}
        while len(rounds[threads[-1]]) < ROUNDS and (time.perf_counter() - started < BUDGET or not rounds[threads[-1]]):
            for each, rates in rounds.items():
                call = partial(steps_per_second, work, threads=each, seconds=SECONDS)
                rates.append(_together(workers[: cores // each], call))
    finally:
        for worker in workers:
            worker.close()
    return {each: statistics.median(rates) for each, rates in rounds.items()}


def steps_per_second(work: Work, *, threads: int, seconds: float) -> float:
    """Return the rate of steps in this process, over at least `seconds` and one step, after one to get going."""
    import torch  # noqa: PLC0415 - slow to import

    torch.set_num_threads(threads)
    step = _step(work)
    step()
    started, steps, elapsed = time.perf_counter(), 0, 0.0
    while elapsed < max(seconds, 1e-9):
        step()
        steps, elapsed = steps + 1, time.perf_counter() - started
    return steps / elapsed


@cache
def _step(work: Work) -> Callable[[], None]:
    """Return a step through a frozen encoder layer: gradients of a small adapter before it, and their update."""
    import torch  # noqa: PLC0415

    heads = max(1, work.width // 64)
    width = heads * 64
    layer = torch.nn.TransformerEncoderLayer(width, heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True)
    layer.requires_grad_(False)
    tokens = torch.randn(work.rows, 64, width)
    factors = [torch.zeros(shape, requires_grad=True) for shape in ((width, 8), (8, width))]

    def step() -> None:
        loss = layer(tokens + tokens @ factors[0] @ factors[1]).square().mean()
        for factor, gradient in zip(factors, torch.autograd.grad(loss, factors), strict=True):
            factor.detach().sub_(gradient)

    return step


def _together(workers: list[Worker], call: Callable[[], float]) -> float:
    for worker in workers:
        worker.send(call)
    return sum(worker.receive() for worker in workers)


def _read(path: Path) -> Split | None:
    try:
        return Split(**json.loads(path.read_text(encoding="utf-8"))["split"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        log.warning("the calibration in %s cannot be read (%s) and is made again", path, error)
        return None
