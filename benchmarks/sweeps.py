"""Run the same grid as our sweep and as one process per run of the baseline, and time both from outside."""

import importlib.metadata
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import psutil
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from benchmarks.tables import log
from xlora_bench.data.datamodule import EpochSampler
from xlora_bench.data.sources import Rows, read_rows
from xlora_bench.runs import seeds
from xlora_bench.runs.config_folder import CONFIGS

INITS = ("kaiming", "svd_nosigma", "svd_right", "svd_both", "svd_left")
RANKS = (2, 16, 64)
WORK = Path(".bench")
"""Completed baseline runs are kept here, by versions: they take minutes and do not depend on our code."""


class Point(NamedTuple):
    """One run of the grid."""

    init: str
    rank: int
    seed: int


class Spent(NamedTuple):
    """What a command cost.

    `peak_bytes` is the largest sum of the resident bytes of its processes, read ten times a second. `stolen` is the
    share of the time of all cores that the host of a virtual machine gave to other machines meanwhile.
    """

    seconds: float
    peak_bytes: int
    stolen: float


@dataclass(frozen=True, kw_only=True)
class Grid:
    """`inits x ranks x seeds` on `rows` training rows of SST-2, or of the embedded task without `data_dir`."""

    rows: int = 2000
    inits: Sequence[str] = INITS
    ranks: Sequence[int] = RANKS
    seeds: Sequence[int] = (0,)
    data_dir: Path | None = None

    @property
    def task(self) -> str:
        """The task's name."""
        return "synth_single" if self.data_dir is None else "sst2"

    def points(self) -> list[Point]:
        """Return all runs."""
        return [Point(init, rank, seed) for seed in self.seeds for init in self.inits for rank in self.ranks]

    def splits(self) -> tuple[Rows, Rows]:
        """Return the training and the evaluation rows that our runs use."""
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            config = compose("config", overrides=[f"task={self.task}", f"task.max_train_rows={self.rows}"])
        task = instantiate(config.task)
        train, evaluation = (read_rows(task, name, data_dir=self.data_dir) for name in list(task.splits)[:2])
        return train, evaluation


def run_ours(grid: Grid, *, launcher: str) -> tuple[Spent, pd.DataFrame]:
    """Return what our sweep cost, without caches and results, and a row per run."""
    folder = WORK / "ours"
    shutil.rmtree(folder, ignore_errors=True)
    overrides = [
        "model=minilm",
        f"task={grid.task}",
        f"task.max_train_rows={grid.rows}",
        "task.batch_size=32",
        "optimizer.lr=1e-3",
        "trainer.max_epochs=1",
        f"init_scheme={','.join(grid.inits)}",
        f"adapter.rank={','.join(map(str, grid.ranks))}",
        f"seed={','.join(map(str, grid.seeds))}",
        f"paths.results_dir={folder}/results",
        f"paths.cache_dir={folder}/cache",
        f"hydra/launcher={launcher}",
        *([f"paths.data_dir={grid.data_dir}"] if grid.data_dir else []),
    ]
    command = [sys.executable, "-m", "xlora_bench", "--config-name", "paper/xlora_sst2", *overrides]
    spent = measured(command, log_to=WORK / "ours.log")
    records = [json.loads(path.read_text(encoding="utf-8")) for path in (folder / "results").rglob("record.json")]
    shutil.rmtree(folder)
    rows = pd.DataFrame([row_of(record) for record in records])
    if len(rows) != len(grid.points()):
        raise RuntimeError(f"our sweep wrote {len(rows)} of {len(grid.points())} records; see {WORK / 'ours.log'}")
    return spent, rows


def row_of(record: dict[str, Any]) -> dict[str, Any]:
    """Return the entries of a record that are compared."""
    costs = {name: value for name, value in record["cost"].items() if name.endswith("_seconds")}
    index = {"init": record["choices"]["init_scheme"], "rank": record["config"]["adapter"]["rank"]}
    return {**index, "seed": record["seed"], "ours": record["metrics"]["last"]["accuracy"], **costs}


def run_baseline(grid: Grid, points: Sequence[Point]) -> pd.DataFrame:
    """Return cost and accuracy of a baseline run for each of `points`; completed ones are read."""
    train, evaluation = grid.splits()
    rows = []
    for number, point in enumerate(points, start=1):
        done = WORK / "baseline" / f"{versions()}-{grid.task}-{grid.rows}-{'-'.join(map(str, point))}.json"
        if not done.exists():
            log.info("baseline run %d of %d: %s", number, len(points), point)
            baseline_run(point, train, evaluation, done)
        rows.append({**point._asdict(), **json.loads(done.read_text(encoding="utf-8"))})
    return pd.DataFrame(rows)


def baseline_run(point: Point, train: Rows, evaluation: Rows, done: Path) -> None:
    """Run the baseline once, with the rows, their order and the head of our run, and write its outcome to `done`."""
    folder = WORK / "rows"
    folder.mkdir(parents=True, exist_ok=True)
    done.parent.mkdir(parents=True, exist_ok=True)
    order = list(EpochSampler(len(train), seed=point.seed))
    frame_of(train).iloc[order].to_parquet(folder / "train.parquet")
    frame_of(evaluation).to_parquet(folder / "validation.parquet")
    out = WORK / "outcome.json"
    options = {
        "--rows": folder,
        "--out": out,
        "--init": "pissa" if point.init == "svd_both" else "lora",
        "--rank": point.rank,
        "--seed": point.seed,
        "--model-seed": seeds.derive(point.seed, "head"),
    }
    arguments = [str(part) for pair in options.items() for part in pair]
    spent = measured([sys.executable, "-m", "benchmarks.baseline_trainer", *arguments], log_to=WORK / "baseline.log")
    outcome = json.loads(out.read_text(encoding="utf-8"))
    done.write_text(json.dumps({**spent._asdict(), "baseline": outcome["accuracy"]}), encoding="utf-8")


def frame_of(rows: Rows) -> pd.DataFrame:
    """Return the rows as the baseline reads them."""
    return pd.DataFrame({"text": rows.texts[0], "label": rows.labels})


def measured(command: Sequence[str], *, log_to: Path, codes: Sequence[int] = (0,)) -> Spent:
    """Run a command and return what it cost.

    Raises:
        RuntimeError: if its exit code is none of `codes`; its output is in `log_to`.
    """
    log_to.parent.mkdir(parents=True, exist_ok=True)
    with log_to.open("w", encoding="utf-8") as file:
        start, peak, before = time.perf_counter(), 0, psutil.cpu_times()
        with psutil.Popen(command, stdout=file, stderr=subprocess.STDOUT) as process:
            while process.poll() is None:
                peak = max(peak, resident(process))
                with suppress(psutil.TimeoutExpired):
                    process.wait(timeout=0.1)
        seconds = time.perf_counter() - start
    if process.returncode not in codes:
        raise RuntimeError(f"`{' '.join(command)}` ended with {process.returncode}; see {log_to}")
    after = psutil.cpu_times()
    stolen = getattr(after, "steal", 0.0) - getattr(before, "steal", 0.0)
    return Spent(seconds, peak, stolen / max(sum(after) - sum(before), 1e-9))


def resident(process: psutil.Process) -> int:
    """Return the resident bytes of a process and its descendants; those that have ended count 0."""
    total = 0
    with suppress(psutil.NoSuchProcess):
        for each in [process, *process.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                total += each.memory_info().rss
    return total


def versions() -> str:
    """Return the versions that a baseline run depends on, for the name of its file."""
    return "-".join(importlib.metadata.version(package) for package in ("torch", "transformers", "peft"))


def spread_over(points: Sequence[Point], count: int | None) -> list[Point]:
    """Return `count` of the points, evenly spread; all of them for None."""
    if count is None or count >= len(points):
        return list(points)
    return [points[(2 * index + 1) * len(points) // (2 * count)] for index in range(count)]
