"""Time of a whole sweep, against one process per run of transformers' Trainer with peft.

    python -m benchmarks.end_to_end --data-dir DIR [--seeds 0 1 2] [--runs 5]

The grid of `paper/xlora_sst2` with minilm: five inits x ranks 2, 16, 64, LoRA on query, key and value, 2,000 rows of
SST-2, one epoch of batches of 32 at lr 1e-3, evaluated on all 872 validation sentences. "Ours" is one command without
caches and without results. The baseline is `benchmarks/baseline_trainer.py` once per run: the same rows, batches in the
same order, steps, schedule and head. `svd_both` is peft's `pissa`. For the other inits the baseline uses peft's
default, which is cheaper. `--runs n` measures n baseline runs spread over the grid, half of them before our sweep and
half after it, and takes their mean for the others. A completed baseline run is not run again (`.bench/baseline`).
Without `--data-dir` the task is the embedded `synth_single`.
"""

import pandas as pd

from benchmarks.limit import flops, gemm_rate
from benchmarks.options import parser, started
from benchmarks.sweeps import INITS, RANKS, Grid, Spent, run_baseline, run_ours, spread_over
from benchmarks.tables import publish
from xlora_bench.models.pretrained import Pretrained

WHERE = ("train_seconds", "eval_seconds", "init_seconds")


def main() -> None:
    """Write `end_to_end.md`, `end_to_end_runs.md` and their `.csv`."""
    arguments = parser(__doc__, rounds=1)
    arguments.add_argument("--rows", type=int, default=2000, help="(%(default)s)")
    arguments.add_argument("--seeds", type=int, nargs="+", default=[0], help="(%(default)s)")
    arguments.add_argument("--inits", nargs="+", choices=INITS, default=INITS, help="(all)")
    arguments.add_argument("--ranks", type=int, nargs="+", default=RANKS, help="(%(default)s)")
    arguments.add_argument("--runs", type=int, help="how many baseline runs to measure (all)")
    arguments.add_argument("--launcher", default="parallel", help="hydra/launcher of our sweep (%(default)s)")
    options = started(arguments)
    data_dir = options.data_dir.resolve() if options.data_dir else None
    grid = Grid(rows=options.rows, inits=options.inits, ranks=options.ranks, seeds=options.seeds, data_dir=data_dir)
    chosen = spread_over(grid.points(), options.runs)
    run_baseline(grid, chosen[::2])
    spent, runs = run_ours(grid, launcher=options.launcher)
    baseline = run_baseline(grid, chosen)
    runs = runs.merge(baseline, on=["init", "rank", "seed"], how="left").sort_values(["init", "rank", "seed"])
    notes = __doc__.split("\n\n", 2)[2]
    publish("end_to_end", summary(grid, spent, runs), title="A whole sweep", notes=notes, folder=options.results)
    columns = {"seconds": "baseline_seconds", "ours": "our_accuracy", "baseline": "baseline_accuracy"}
    publish("end_to_end_runs", runs.rename(columns=columns), title="The runs of the sweep", folder=options.results)


def summary(grid: Grid, spent: Spent, runs: pd.DataFrame) -> pd.DataFrame:
    """Return the summary, a row per quantity."""
    count, both = len(runs), runs.dropna(subset="seconds")
    theirs = both["seconds"].mean() * count
    difference = both["ours"] - both["baseline"]
    rows = {
        "runs": count,
        "baseline runs measured": len(both),
        "ours, seconds": spent.seconds,
        "baseline, seconds (mean of its runs x runs)": theirs,
        "throughput, ours over baseline": theirs / spent.seconds,
        "stolen by other machines, share of the cores, ours": spent.stolen,
        "stolen by other machines, baseline (mean)": both["stolen"].mean(),
        "ours, peak memory of all its processes, MiB": spent.peak_bytes / 2**20,
        "baseline, peak memory of a process, MiB": both["peak_bytes"].max() / 2**20,
        "accuracy, ours, the same runs": both["ours"].mean(),
        "accuracy, baseline": both["baseline"].mean(),
        "difference, mean": difference.mean(),
        "its standard error": difference.sem(),
        "spread of the baseline over seeds (mean std)": over_seeds(both["baseline"], both),
        "spread of ours over seeds (mean std)": over_seeds(runs["ours"], runs),
        "limit: products of the real tokens, all cores, seconds": limit(grid) * count,
        **{f"ours, sum over runs: {name}": runs[name].sum() for name in WHERE},
    }
    return pd.DataFrame({"quantity": list(rows), "value": [float(value) for value in rows.values()]})


def over_seeds(scores: pd.Series, runs: pd.DataFrame) -> float:
    """Return the standard deviation over seeds, averaged over inits and ranks."""
    return float(scores.groupby([runs["init"], runs["rank"]]).std().mean())


def limit(grid: Grid) -> float:
    """Return the seconds per run of the frozen layers' matrix products on real tokens, at this machine's speed."""
    tokenizer = Pretrained(name="embedded/minilm").tokenizer()
    work = 0.0
    for rows, train in zip(grid.splits(), (True, False), strict=True):
        ids = tokenizer(rows.texts[0], truncation=True, max_length=128)["input_ids"]
        work += flops(pd.Series(ids).map(len).to_numpy(), train=train)
    return work / gemm_rate()


if __name__ == "__main__":
    main()
