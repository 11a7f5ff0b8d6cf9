"""Time to plan and check a sweep: `--dry-run` from the start of the process to its end.

    python -m benchmarks.planning [--runs 600 10000]

`seeds`: ten seeds of each config. `distinct`: every run has another rank or learning rate. `start`: one run, whose time
goes to the imports, the composition of the config, and the check of model and data.
"""

import subprocess
import sys
import tempfile

import pandas as pd

from benchmarks.options import parser, started
from benchmarks.tables import publish
from benchmarks.timing import timed

RANKS = 100


def main() -> None:
    """Write `planning.md` and `planning.csv`."""
    arguments = parser(__doc__, rounds=3)
    arguments.add_argument("--runs", type=int, nargs="+", default=[600, 10_000], help="(%(default)s)")
    options = started(arguments)
    sweeps = {("start", 1): []}
    for count in options.runs:
        sweeps["seeds", count] = [*grid(count // 10), "seed=range(10)"]
        sweeps["distinct", count] = grid(count)
    rows = []
    for (kind, count), overrides in sweeps.items():
        seconds = [timed(dry_run, overrides) for _ in range(options.rounds)]
        rows.append({"sweep": kind, "runs": count, "seconds": min(seconds)})
    frame = pd.DataFrame(rows)
    frame["ms per run"] = 1e3 * (frame["seconds"] - frame["seconds"].iloc[0]) / frame["runs"]
    notes = f"{__doc__.split(chr(10) * 2, 2)[2]}The lowest of {options.rounds} rounds."
    publish("planning", frame, title="Planning", notes=notes, folder=options.results)


def grid(count: int) -> list[str]:
    """Return the overrides of `count` runs: ranks 1 to 100, and as many learning rates as needed."""
    rates = [f"{1e-5 * (index + 1):.6f}" for index in range(-(-count // RANKS))]
    return [f"adapter.rank=range(1,{min(count, RANKS) + 1})", f"optimizer.lr={','.join(rates)}"]


def dry_run(overrides: list[str]) -> None:
    """Plan a sweep in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "xlora_bench", "--dry-run", "task=synth_single", *overrides]
        subprocess.run([*command, f"paths.results_dir={folder}"], check=True, capture_output=True)


if __name__ == "__main__":
    main()
