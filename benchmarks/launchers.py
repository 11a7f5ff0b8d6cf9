"""Copies of one command on one results folder, and the memory of a further worker of `hydra/launcher=parallel`.

    python -m benchmarks.launchers [--epochs 20]

The sweep has 16 runs of the embedded model and task, each on one thread. Start and report of each copy weigh
more on short runs: with `--epochs 10`, two copies took .63 of the time of one on this machine.

`copies`: the command is started so many times at once; `trained`
counts the runs that all of them trained. `workers`: the largest sum of the proportional set sizes (PSS: a page that n
processes share counts 1/n) of all processes, read ten times a second.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import psutil

from benchmarks.options import parser, started
from benchmarks.tables import publish

SWEEP = (
    "-m",
    "task=synth_single",
    "task.max_train_rows=64",
    "task.max_eval_rows=32",
    "adapter=lora,lu",
    "seed=range(8)",
)
RUNS = 16


def main() -> None:
    """Write `launchers.md` and `launchers.csv`."""
    arguments = parser(__doc__, rounds=1)
    arguments.add_argument("--epochs", type=int, default=20, help="(%(default)s)")
    options = started(arguments)
    rows = []
    for copies in (1, 2, 4):
        rows.append({"what": f"copies: {copies}", **run(copies, [], options.epochs)})
    for workers in (1, 2):
        words = ["hydra/launcher=parallel", f"hydra.launcher.workers={workers}"]
        rows.append({"what": f"workers: {workers}", **run(1, words, options.epochs)})
    frame = pd.DataFrame(rows)
    for kind, first in (("copies", 0), ("workers", 3)):
        own = frame["what"].str.startswith(kind)
        frame.loc[own, "of one"] = frame["seconds"] / frame["seconds"][first]
    publish("launchers", frame, title="Launchers", notes=__doc__.split("\n\n", 2)[2], folder=options.results)


def run(copies: int, words: list[str], epochs: int) -> dict[str, float]:
    """Start the command so many times on an empty folder; return what all of them took."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "xlora_bench", *SWEEP, f"trainer.max_epochs={epochs}", *words]
        command += [f"paths.results_dir={folder}/results"]
        start, peak = time.perf_counter(), 0
        logs = [Path(folder) / f"{number}.log" for number in range(copies)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        processes = [
            psutil.Popen(command, stdout=log.open("w"), stderr=subprocess.STDOUT, env=environment) for log in logs
        ]
        while any(process.poll() is None for process in processes):
            peak = max(peak, proportional(processes))
            time.sleep(0.1)
        seconds = time.perf_counter() - start
        lines = [line for log in logs for line in log.read_text().splitlines() if re.match(r"run \d+ of ", line)]
        assert all(process.returncode == 0 for process in processes), logs[0].read_text()
        trained = sum("already done" not in line for line in lines)
        assert len(lines) == copies * RUNS
    return {"seconds": seconds, "trained": trained, "peak MiB": peak / 2**20}


def proportional(processes: list[psutil.Popen]) -> int:
    """Return the proportional bytes of processes and their descendants; those that have ended count 0."""
    total = 0
    for process in processes:
        try:
            family = [process, *process.children(recursive=True)]
            total += sum(each.memory_full_info().pss for each in family)
        except psutil.NoSuchProcess:
            continue
    return total


if __name__ == "__main__":
    main()
