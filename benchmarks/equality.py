"""Accuracy of our runs and of transformers' Trainer with peft on the same rows, seed by seed.

    python -m benchmarks.equality --data-dir DIR [--rows 4096] [--seeds 0 1 2 3 4 5]

minilm, LoRA with r = 8 on query, key and value, `paper/xlora_sst2` with batches of 32, lr 1e-3 and one epoch, evaluated
on all 872 validation sentences of SST-2. Both programs have the same rows in the same order, the same head and the
model's own dropout, whose masks differ, as do the draws of A. So single runs differ; the question is whether the means
do. That the programs compute the same when the masks and draws are the same is a test, within 1e-6
(`tests/training/loop/test_equal_to_trainer.py`). The interval is Student's for the mean of the paired differences.
"""

import pandas as pd

from benchmarks.options import parser, started
from benchmarks.sweeps import Grid, run_baseline, run_ours
from benchmarks.tables import publish
from xlora_bench.results.statistics.intervals import mean_interval


def main() -> None:
    """Write `equality.md` and `equality.csv`."""
    arguments = parser(__doc__, rounds=1)
    arguments.add_argument("--rows", type=int, default=4096, help="(%(default)s)")
    arguments.add_argument("--seeds", type=int, nargs="+", default=list(range(6)), help="(%(default)s)")
    options = started(arguments)
    data_dir = options.data_dir.resolve() if options.data_dir else None
    grid = Grid(rows=options.rows, inits=("kaiming",), ranks=(8,), seeds=options.seeds, data_dir=data_dir)
    _, runs = run_ours(grid, launcher="parallel")
    runs = runs.merge(run_baseline(grid, grid.points()), on=["init", "rank", "seed"]).sort_values("seed")
    notes = f"{__doc__.split(chr(10) * 2, 2)[2]}\n{sentence(runs)}"
    publish("equality", runs[["seed", "ours", "baseline"]], title="Equality", notes=notes, folder=options.results)


def sentence(runs: pd.DataFrame) -> str:
    """Return the mean of the paired differences with its interval, and both means, in words."""
    difference = mean_interval(runs["ours"] - runs["baseline"])
    return (
        f"**Ours {runs['ours'].mean():.4f}, Trainer with peft {runs['baseline'].mean():.4f}; mean difference "
        f"{difference.estimate:+.4f}, 95 % interval {difference.low:+.4f} to {difference.high:+.4f}, "
        f"{difference.n} seeds.**"
    )


if __name__ == "__main__":
    main()
