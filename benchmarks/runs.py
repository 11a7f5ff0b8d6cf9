"""The fixed cost of a run, and the memory of a process that trains many runs.

    python -m benchmarks.runs                       # 100 tiny runs in one process
    python -m benchmarks.runs --processes 100       # and the first 100 again, each in a process of its own
    python -m benchmarks.runs --threads 2           # all of it on two threads

A tiny run is one training step on 16 sentences and one evaluation on 16 sentences. Its fixed cost is everything else.
Times are CPU times, because other work on the machine changes them less than it changes wall time. With `--processes`
the program stops with an error if a run gives other results in a process of its own. Both use the same number of
threads, because the last bits of a sum depend on it.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pandas as pd
import psutil
import torch

import xlora_bench.training.prepare
import xlora_bench.training.train
from benchmarks.tables import RESULTS, log, publish, show_log
from xlora_bench.cli.main import main as xlora_bench_main
from xlora_bench.inject.methods import Baseline
from xlora_bench.inject.methods.native import NativeMethod
from xlora_bench.models import weight_cache
from xlora_bench.runs.run import Run
from xlora_bench.training.callbacks import EpochCheckpoint
from xlora_bench.training.loop.module import Classifier

TINY = (
    "task=synth_single",
    "task.max_train_rows=16",
    "task.max_eval_rows=16",
    "task.batch_size=16",
    "trainer.max_epochs=1",
    "optimizer.lr=3e-3",
    "monitor.every_n_steps=1",
)
ADAPTERS = ("lora", "pissa", "bitfit", "orthogonal_qr")

PARTS: tuple[tuple[str, Any, str], ...] = (
    ("options, data", xlora_bench.training.train, "resolve"),
    ("model", weight_cache, "classifier"),
    ("adapter", NativeMethod, "apply"),
    ("adapter", Baseline, "apply"),
    ("layout", xlora_bench.training.prepare, "choose_layout"),
    ("fit", xlora_bench.training.prepare.lightning.Trainer, "fit"),
    ("step", Classifier, "optimizer_step"),
    ("evaluation", Classifier, "validation_step"),
    ("checkpoint", EpochCheckpoint, "on_train_epoch_end"),
    ("record", Run, "end"),
)
"""What is timed: the name of the part, the owner and the function; `step`, `evaluation`, `checkpoint` are in `fit`."""


def main() -> None:
    """Publish the cost of the parts and the memory; raise an error if a process of its own gives other results."""
    options = parse()
    show_log()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        runs = in_one_process(Path(folder) / "one", options.runs)
        report(runs, options.results)
        if options.processes:
            alone = as_processes(
                Path(folder) / "many", Path(folder) / "one", options.processes, threads=options.threads
            )
            publish("runs_alone", alone, title="Tiny runs as processes of their own", folder=options.results)


def parse() -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--processes", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, default=RESULTS)
    return parser.parse_args()


def in_one_process(folder: Path, runs: int) -> pd.DataFrame:
    """Return a row per run: CPU seconds of its parts, of the run, and since the run before; resident bytes."""
    rows: list[dict[str, float]] = []
    clocked: dict[str, float] = {}
    train, ended = xlora_bench.training.train.train, time.process_time()

    def clocked_train(config: Any) -> float | None:
        nonlocal ended
        clocked.clear()
        wall, start = time.perf_counter(), time.process_time()
        score = train(config)
        between, ended = start - ended, time.process_time()
        rows.append(
            {**dict.fromkeys((name for name, *_ in PARTS), 0.0), **clocked, "run": ended - start, "between": between}
            | {"wall": time.perf_counter() - wall, "resident": psutil.Process().memory_info().rss}
        )
        return score

    with ExitStack() as patches:
        patches.enter_context(mock.patch.object(xlora_bench.training.train, "train", clocked_train))
        for name, owner, attribute in PARTS:
            patches.enter_context(clock(owner, attribute, clocked, name))
        seeds = ",".join(str(seed) for seed in range(-(-runs // len(ADAPTERS))))
        run(["-m", *TINY, f"adapter={','.join(ADAPTERS)}", f"seed={seeds}", *paths(folder)])
    return pd.DataFrame(rows)


@contextmanager
def clock(owner: Any, attribute: str, clocked: dict[str, float], name: str) -> Iterator[None]:
    """Add the CPU seconds of every call of `owner.attribute` to `clocked[name]`."""
    plain: Callable[..., Any] = getattr(owner, attribute)

    def timed(*args: Any, **kwargs: Any) -> Any:
        start = time.process_time()
        try:
            return plain(*args, **kwargs)
        finally:
            clocked[name] = clocked.get(name, 0.0) + time.process_time() - start

    with mock.patch.object(owner, attribute, timed):
        yield


def run(arguments: list[str]) -> None:
    """Run `xlora-bench` with `arguments` in this process."""
    with mock.patch.object(sys, "argv", ["xlora_bench", *arguments]):
        xlora_bench_main()


def paths(folder: Path) -> list[str]:
    """Return the overrides that keep a run's files in `folder`."""
    return [f"paths.results_dir={folder}", f"paths.cache_dir={folder.parent / 'cache'}"]


def report(runs: pd.DataFrame, folder: Path) -> None:
    """Publish the median CPU milliseconds of the parts of a warm run, and the memory after some of the runs."""
    later = runs.iloc[len(ADAPTERS) :]  # the first runs fill the caches
    parts = later.assign(fixed=later["run"] - later["step"] - later["evaluation"])
    parts["in fit, rest"] = parts["fit"] - parts["step"] - parts["evaluation"] - parts["checkpoint"]
    named = parts.drop(columns=["resident", "fit"])
    table = pd.DataFrame({"part": named.columns, "ms": 1e3 * named.median().to_numpy()})
    publish("runs_cost", table, title=f"A tiny warm run, median of {len(later)}", folder=folder)
    indices = [index for index in (0, 9, len(runs) // 2, len(runs) - 1) if index < len(runs)]
    resident = runs["resident"].to_numpy()[indices] / 2**20
    memory = pd.DataFrame({"after run": [index + 1 for index in indices], "resident MiB": resident})
    publish("runs_memory", memory, title="Memory of one process over its runs", folder=folder)


def as_processes(folder: Path, reference: Path, runs: int, *, threads: int) -> pd.DataFrame:
    """Train the first `runs` runs again, each in a process of its own; return their wall and CPU seconds.

    Raises:
        ValueError: if a result differs in one bit.
    """
    rows = []
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    for path in sorted(reference.glob("runs/*/record.json"))[:runs]:
        record = json.loads(path.read_text())
        overrides = [f"adapter={record['choices']['adapter']}", f"seed={record['seed']}", *paths(folder)]
        start, cpu = time.perf_counter(), os.times()
        command = [sys.executable, "-m", "xlora_bench", *TINY, *overrides]
        subprocess.run(command, check=True, capture_output=True, env=environment)
        spent = os.times()
        rows.append(
            {
                "wall": time.perf_counter() - start,
                "cpu": spent.children_user + spent.children_system - cpu.children_user - cpu.children_system,
            }
        )
        if difference := differing(path.parent, folder / "runs" / path.parent.name):
            raise ValueError(f"{' '.join(overrides)}: {difference} is not the same as in one process")
        log.info("%d of %d: the same bits in a process of its own, %.1f s", len(rows), runs, rows[-1]["wall"])
    frame = pd.DataFrame(rows)
    return pd.DataFrame(
        {"runs": [len(frame)], "wall s, median": frame.wall.median(), "cpu s, median": frame.cpu.median()}
    )


def differing(one: Path, other: Path) -> str | None:
    """Return the first result file of a run that is not the same to the bit, or None."""
    for name in ("adapter.safetensors", "adapter_best.safetensors", "predictions.parquet", "factors.csv"):
        contents = [(folder / name).read_bytes() if (folder / name).exists() else None for folder in (one, other)]
        if contents[0] != contents[1]:
            return name
    records = [json.loads((folder / "record.json").read_text()) for folder in (one, other)]
    keys = ("status", "reason", "hashes", "parameters", "ranks", "metrics")
    return next((key for key in keys if records[0][key] != records[1][key]), None)


if __name__ == "__main__":
    main()
