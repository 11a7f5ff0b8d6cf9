"""How the time of a sweep grows with its runs and with the rows of a run.

    python -m benchmarks.growth --data-dir DIR [--runs 5 15 45] [--rows 1000 4000 16000]

The grid of `benchmarks.end_to_end`. For the number of runs, ranks and then seeds are added, at 2,000 rows. For the
number of rows, there are five runs: the five inits at rank 16. The baseline's time is the mean of two of its runs
(`svd_left` at rank 16, one before our sweep and one after it) times the number of runs, because its runs share nothing.
A completed row of the table is kept in `.bench/growth` until all are completed.
"""

import json
import shutil
from dataclasses import replace

import pandas as pd

from benchmarks.options import parser, started
from benchmarks.sweeps import INITS, RANKS, WORK, Grid, Point, run_baseline, run_ours
from benchmarks.tables import publish

ROWS = 2000


def main() -> None:
    """Write `growth.md` and `growth.csv`."""
    arguments = parser(__doc__, rounds=1)
    arguments.add_argument("--runs", type=int, nargs="+", default=[5, 15, 45], help="(%(default)s)")
    arguments.add_argument("--rows", type=int, nargs="+", default=[1000, 4000, 16000], help="(%(default)s)")
    arguments.add_argument("--launcher", default="parallel", help="hydra/launcher of our sweep (%(default)s)")
    options = started(arguments)
    data_dir = options.data_dir.resolve() if options.data_dir else None
    grids = [replace(of_size(count), rows=ROWS, data_dir=data_dir) for count in options.runs]
    grids += [replace(of_size(len(INITS)), rows=rows, data_dir=data_dir) for rows in options.rows]
    frame = pd.DataFrame([row(grid, index, launcher=options.launcher) for index, grid in enumerate(grids)])
    publish("growth", frame, title="Growth", notes=__doc__.split("\n\n", 2)[2], folder=options.results)
    shutil.rmtree(WORK / "growth")


def of_size(count: int) -> Grid:
    """Return a grid of `count` runs: five inits at rank 16, at three ranks, at three ranks and more seeds."""
    if count == len(INITS):
        return Grid(ranks=(16,))
    per_seed = len(INITS) * len(RANKS)
    if count % per_seed:
        raise ValueError(f"`--runs` (={count}) must be {len(INITS)} or a multiple of {per_seed}")
    return Grid(seeds=tuple(range(count // per_seed)))


def row(grid: Grid, index: int, *, launcher: str) -> dict[str, float]:
    """Return row number `index`: the stored one if there is one, else measured now."""
    done = WORK / "growth" / f"{grid.task}-{len(grid.points())}-{grid.rows}-{launcher}.json"
    if not done.exists():
        measured_now = measured(grid, index, launcher=launcher)
        done.parent.mkdir(parents=True, exist_ok=True)
        done.write_text(json.dumps(measured_now), encoding="utf-8")
    return json.loads(done.read_text(encoding="utf-8"))


def measured(grid: Grid, index: int, *, launcher: str) -> dict[str, float]:
    """Return a row: the seconds of our sweep and of the baseline, whose runs have other seeds in each row."""
    count = len(grid.points())
    around = [Point("svd_left", 16, seed) for seed in (2 * index, 2 * index + 1)]
    run_baseline(grid, around[:1])
    spent, _ = run_ours(grid, launcher=launcher)
    theirs = run_baseline(grid, around)["seconds"].mean()
    return {
        "runs": count,
        "rows": grid.rows,
        "ours, s": spent.seconds,
        "ours, s a run": spent.seconds / count,
        "baseline, s a run": theirs,
        "throughput": theirs * count / spent.seconds,
    }


if __name__ == "__main__":
    main()
