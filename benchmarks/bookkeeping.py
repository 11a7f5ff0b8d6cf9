"""What a results folder with many runs costs after the training: its table, its page, its states, a progress line.

    python -m benchmarks.bookkeeping [--runs 5000] [--listed 10000]

`table`: `xlora-bench table` of `--runs` records with predictions, from the start of the process to its end; `first
look`: without the index of an earlier look (the folder `.index`). `report`: `xlora-bench report` of them, after the
tables. `page opens`: from the address of this page to its tables in headless Chromium, wall-clock time, the best of
three; `MB`: the size of the page. `status`: `xlora-bench status` of `--listed` runs. `progress line`: job file and
line of one run, when so many runs of its sweep have ended before. The results folders are made up: four tasks, 50
methods, 25 seeds or more, 300 examples, three epochs. Seconds are CPU time of all threads.
"""

import itertools
import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

from benchmarks.options import parser, started
from benchmarks.sweeps import WORK
from benchmarks.tables import publish
from xlora_bench.data import metrics
from xlora_bench.data.task import TextTask
from xlora_bench.runs.command_line import CommandLine
from xlora_bench.runs.config_folder import CONFIGS
from xlora_bench.runs.read_records import INDEX
from xlora_bench.runs.record import Record
from xlora_bench.sweeps.planning.jobs import EndedJobs, Job, PlannedRun
from xlora_bench.sweeps.planning.plan_file import SweepPlan
from xlora_bench.sweeps.reporting.progress import progress_line

TASKS = ("sst2", "cola", "rte", "stsb")
ADAPTERS = ("lora", "dora", "lu", "cholesky", "orthogonal", "asymmetric", "vera", "loldu", "lora_xs", "pissa")
INITS = ("kaiming", "svd_both", "svd_right", "svd_left", "svd_nosigma")
SEEDS, EPOCHS, EXAMPLES = 25, 3, 300
FULL = len(ADAPTERS) * len(INITS) * len(TASKS) * SEEDS
LINE = CommandLine(config_name="config", config_dir=None, hydra=())


About = tuple[dict[str, Any], dict[str, Any], TextTask]
"""Config, choices and task of a run."""


class Point(NamedTuple):
    """One run of the sweep."""

    adapter: str
    init: str
    task: str
    seed: int

    @property
    def overrides(self) -> list[str]:
        """The run's part of the command line."""
        return [f"adapter={self.adapter}", f"init_scheme={self.init}", f"task={self.task}", f"seed={self.seed}"]


def main() -> None:
    """Write `bookkeeping.md` and `bookkeeping.csv`."""
    arguments = parser(__doc__, rounds=1)
    arguments.add_argument("--runs", type=int, default=5000, help="(%(default)s)")
    arguments.add_argument("--listed", type=int, default=10_000, help="(%(default)s)")
    options = started(arguments)
    with_predictions = made(WORK / "recorded", options.runs, predictions=True)
    listed = made(WORK / "listed", options.listed, predictions=False)
    rows = [
        *twice("table", with_predictions, runs=options.runs),
        {"what": "report", "runs": options.runs, "seconds": command("report", with_predictions)},
        {"what": "page opens", "runs": options.runs, **opened(with_predictions / "report.html")},
        *twice("status", listed, runs=options.listed),
        *({"what": "progress line", "runs": count, "seconds": line(count)} for count in (10, options.listed)),
    ]
    frame = pd.DataFrame(rows)
    notes = __doc__.split("\n\n", 2)[2]
    publish("bookkeeping", frame, title="Bookkeeping", notes=notes, folder=options.results)


def points(count: int) -> Iterator[Point]:
    """Yield `count` runs: all tasks and seeds of a method, then the next method."""
    grid = itertools.product(ADAPTERS, INITS, TASKS, range(SEEDS * -(-count // FULL)))
    return (Point(*values) for values in itertools.islice(grid, count))


def made(folder: Path, count: int, *, predictions: bool) -> Path:
    """Return a results folder of `count` runs of one sweep; a folder of an earlier start is used again."""
    if folder.exists():
        return folder
    whole = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(whole, ignore_errors=True)
    sweep = whole / "hydra" / "2026-01-01" / "00-00-00"
    sweep.mkdir(parents=True)
    runs = list(points(count))
    plan = tuple(PlannedRun(overrides=tuple(run.overrides)) for run in runs)
    SweepPlan(command_line=LINE, runs=plan).write(sweep)
    about = {name: composed(name) for name in TASKS}
    rng = np.random.default_rng(0)
    for number, run in enumerate(runs):
        record = write_run(whole, number, run, about=about[run.task], rng=rng, predictions=predictions)
        write_job(sweep, number, run, record)
    whole.rename(folder)
    return folder


def composed(name: str) -> About:
    """Return config, choices and task of a run."""
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = compose("config", overrides=[f"task={name}"], return_hydra_config=True)
    choices = OmegaConf.to_container(config.hydra.runtime.choices)
    choices = {key: choice for key, choice in choices.items() if "/" not in key}
    OmegaConf.set_struct(config, False)
    del config["hydra"]
    return OmegaConf.to_container(config, resolve=True), choices, instantiate(config.task)


def write_run(
    folder: Path,
    number: int,
    run: Point,
    *,
    about: About,
    rng: np.random.Generator,
    predictions: bool,
) -> Record:
    """Write the record of a run, and its predictions, whose scores are the recorded ones."""
    (config, choices, task), frames, history = about, [], []
    labels = np.random.default_rng(len(run.task)).integers(0, task.num_labels + 1, EXAMPLES) % 2
    for epoch in range(1, EPOCHS + 1):
        logits = rng.normal(size=(EXAMPLES, task.num_labels)).astype(np.float32)
        logits[np.arange(EXAMPLES), labels % task.num_labels] += 1 + 0.1 * ADAPTERS.index(run.adapter)
        if task.is_regression:
            logits += labels[:, None]
        history.append({"epoch": epoch, **metrics.compute(task, logits, labels), "loss": 0.5})
        predicted = logits.squeeze(1) if task.is_regression else logits.argmax(1)
        columns = {f"logit_{index}": logits[:, index] for index in range(task.num_labels)}
        known = {"epoch": epoch, "split": "validation", "idx": np.arange(EXAMPLES)}
        frames.append(pd.DataFrame({**known, "label": labels, "prediction": predicted, **columns}))
    record = Record(
        run_id=f"{number:016x}",
        status="completed",
        config={**config, "seed": run.seed},
        choices={**choices, "adapter": run.adapter, "init_scheme": run.init},
        seed=run.seed,
        started=f"2026-01-01T{number // 3600:02d}:{number // 60 % 60:02d}:{number % 60:02d}+00:00",
        finished="2026-01-02T00:00:00+00:00",
        code={"commit": "0" * 40, "dirty": False},
        versions=dict.fromkeys((f"package-{index}" for index in range(17)), "1.0"),
        machine={"cpu": "any", "cores": 2, "threads": 1},
        hashes=dict.fromkeys(("data", "weights", "tokenizer"), "0" * 32),
        parameters={"adapter": 73_728, "head": 770, "trainable": 74_498, "total": 22_787_714},
        ranks=dict.fromkeys((f"encoder.layer.{index}.attention.self.query" for index in range(24)), 8),
        metrics={
            "headline": task.headline,
            "history": history,
            "best": max(history, key=lambda entry: entry[task.headline]),
            "last": history[-1],
        },
        cost={"train_seconds": 10.0 + rng.random(), "peak_bytes": 1e8, "samples_per_second": 100.0},
        files=dict.fromkeys((f"file-{index}" for index in range(4)), "0" * 32),
    )
    record.write(folder / "runs" / record.run_id / "record.json")
    if predictions:
        pd.concat(frames).to_parquet(folder / "runs" / record.run_id / "predictions.parquet", index=False)
    return record


def write_job(sweep: Path, number: int, run: Point, record: Record) -> None:
    """Write what the job of a run leaves in the folder of its sweep."""
    output = sweep / str(number)
    output.mkdir()
    (output / "run.json").write_text(json.dumps({"run_id": record.run_id, "overrides": run.overrides}))
    job_of(number, run, record.score).write(sweep / "jobs")


def job_of(number: int, run: Point, score: float | None) -> Job:
    """Return a completed job."""
    return Job(
        number=number,
        overrides=run.overrides,
        choices={},
        run_id=f"{number:016x}",
        status="completed",
        score=score,
        error=None,
        reused=False,
    )


def line(count: int) -> float:
    """Return the CPU seconds of one job's file and progress line after `count` jobs, mean of ten."""
    folder, runs = WORK / "jobs", list(points(count + 10))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    ended = EndedJobs(folder)
    ended.end(job_of(0, runs[0], 0.5))
    for number in range(1, count):
        ended.add(job_of(number, runs[number], 0.5))
    start = time.process_time()
    for number in range(count, count + 10):
        job = job_of(number, runs[number], 0.5)
        ended.end(job)
        progress_line(job, ended=ended, runs=len(runs), shown={"seed"}, elapsed=1.0)
    return (time.process_time() - start) / 10


def twice(name: str, folder: Path, *, runs: int) -> list[dict[str, Any]]:
    """Return the rows of a subcommand on a results folder that has no index yet, and then again."""
    shutil.rmtree(folder / INDEX, ignore_errors=True)
    return [{"what": what, "runs": runs, "seconds": command(name, folder)} for what in (f"{name}, first look", name)]


def command(name: str, folder: Path) -> float:
    """Return the CPU seconds of a subcommand on a results folder."""
    before = os.times()
    subprocess.run([sys.executable, "-m", "xlora_bench", name, str(folder)], check=True, capture_output=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def opened(page: Path) -> dict[str, float]:
    """Return the seconds until a page is ready in headless Chromium (NaN without one), and its size in MB."""
    size = {"MB": page.stat().st_size / 1e6}
    if (chromium := shutil.which("chromium")) is None:
        return {"seconds": math.nan, **size}
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - of the extra `dev`

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        seconds = []
        for _ in range(3):
            tab, start = browser.new_page(), time.perf_counter()
            tab.goto(page.absolute().as_uri())
            tab.wait_for_selector("html[data-ready=true]")
            seconds.append(time.perf_counter() - start)
            tab.close()
        browser.close()
    return {"seconds": min(seconds), **size}


if __name__ == "__main__":
    main()
