"""`hydra/launcher=parallel` in a Hydra application that runs as a user's does."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from tests.helpers.apps import SMALL, records, run
from tests.helpers.command_lines import run_all
from tests.helpers.names import ROOT
from xlora_bench.sweeps.launchers.placement import count_cores

CONFIG = """
defaults:
  - adapter: lora
  - logger: csv
  - override hydra/callbacks: report
  - override hydra/job_logging: plain
  - override hydra/hydra_logging: plain
  - _self_
seed: 0
does: work
paths: {results_dir: multirun, cache_dir: cache}
hydra: {sweep: {dir: "${paths.results_dir}/sweeps/${now:%H-%M-%S-%f}"}}
"""
PARALLEL = ("hydra/launcher=parallel", "hydra.launcher.workers=2", "hydra.launcher.threads=1")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.process,
    pytest.mark.xdist_group("launcher"),  # so that the shared sweep runs once
    pytest.mark.skipif(
        count_cores() < 2 or not hasattr(os, "sched_getaffinity"), reason="two bound workers need two cores"
    ),
]


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    folder = tmp_path_factory.mktemp("app")
    shutil.copytree(ROOT / "conf" / "hydra", folder / "conf" / "hydra")
    for name, text in {"config": CONFIG, "adapter/lora": "{rank: 8}", "logger/csv": "{}"}.items():
        path = folder / "conf" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    environment |= {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}

    def start(results, *arguments, **more):
        command = [sys.executable, "-m", "tests.helpers.parallel_app", "conf", "-m", *arguments]
        return subprocess.Popen(
            [*command, f"paths.results_dir={results}"],
            cwd=folder,
            env=environment | more,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


def finish(process):
    out, err = process.communicate(timeout=600)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def logged(results):
    return [json.loads(line) for line in (results / "log.jsonl").read_text().splitlines()]


def started(sweep, results, *, jobs):
    """Wait until so many jobs have started; return the processes that ran them."""
    while not (results / "log.jsonl").exists() or len(logged(results)) < jobs:
        assert sweep.poll() is None, sweep.stderr.read()
        time.sleep(0.05)
    return {entry["pid"] for entry in logged(results)}


@pytest.fixture(scope="module")
def mixed(start, tmp_path_factory):
    """A sweep in which jobs work, fail, and lose their workers."""
    results = tmp_path_factory.mktemp("mixed")
    return finish(start(results, *PARALLEL, "does=work,fail,die", "seed=0,1")), results


def test_every_run_has_its_line_in_turn(mixed):
    sweep, _ = mixed
    lines = [line for line in sweep.stdout.splitlines() if line.startswith("run ")]
    assert [line.split(" |")[0] for line in lines] == [f"run {index} of 6" for index in range(1, 7)]
    (failed, _) = [line for line in lines if "does=fail" in line]
    assert "| failed (ValueError: meant to fail) |" in failed
    assert sweep.stdout.splitlines()[0].startswith("parallel: at most 2 workers x 1 threads on ")


def test_the_table_comes_and_errors_are_raised_at_the_end(mixed):
    sweep, results = mixed
    assert sweep.returncode == 1
    assert "Error executing job with overrides" in sweep.stderr
    assert "ValueError: meant to fail" in sweep.stderr
    (report,) = (results / "reports").iterdir()
    assert list(pd.read_csv(report / "runs.csv")["status"]) == ["completed"] * 2 + ["failed"] * 4
    row = "0.5805 ± 0.0007 (2) | 2 failed | 2 failed |"
    assert row in (report / "table.md").read_text()
    assert "2 failed" in sweep.stdout


def test_a_job_whose_workers_die_is_tried_twice_and_failed(mixed):
    sweep, results = mixed
    tries = [entry["number"] for entry in logged(results)]
    assert [tries.count(number) for number in range(6)] == [1, 1, 1, 1, 2, 2]
    assert sweep.stderr.count("its process was killed (SIGKILL)") == 4
    assert sweep.stdout.count("failed (WorkerLostError: its process was killed (SIGKILL); if memory ran out") == 2


def test_workers_are_capped_and_bound_and_know_their_sweep(mixed):
    _, results = mixed
    entries = logged(results)
    assert all((entry["torch"], entry["omp"], entry["rayon"]) == (1, "1", "1") for entry in entries)
    assert {entry["sweep"] for entry in entries} == {next((results / "reports").iterdir()).name}
    bound = {tuple(entry["cpus"]) for entry in entries}
    usable = os.sched_getaffinity(0)
    assert bound == ({(cpu,) for cpu in usable} if len(usable) == 2 else {tuple(sorted(usable))})


def test_an_interrupt_ends_all_workers_and_leaves_the_rest_to_be_resumed(start, tmp_path):
    sweep = start(tmp_path, *PARALLEL, "does=work,sleep", "seed=0,1,2")
    workers = started(sweep, tmp_path, jobs=5)
    sweep.send_signal(signal.SIGINT)
    ended = finish(sweep)  # long before its jobs would have slept enough
    assert ended.returncode != 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
    (report,) = (tmp_path / "reports").iterdir()
    assert "3 missing" in (report / "table.md").read_text()
    assert sorted(pd.read_csv(report / "runs.csv")["status"]) == ["completed"] * 3 + ["missing"] * 3


def test_more_threads_than_cores_are_refused(start, tmp_path):
    sweep = finish(start(tmp_path, "hydra/launcher=parallel", "hydra.launcher.workers=999", "seed=0,1"))
    assert sweep.returncode == 1
    assert "`hydra.launcher.workers` x `hydra.launcher.threads` (=999 x 1) must be at most" in sweep.stderr


SHARED = ("hydra/launcher=parallel", "hydra.launcher.runs_per_device=2")


def test_runs_share_the_devices_as_many_on_each_as_were_set(start, tmp_path):
    sweep = finish(start(tmp_path, *SHARED, "does=work", "seed=0,1,2,3,4", CUDA_VISIBLE_DEVICES="5,7"))
    assert sweep.returncode == 0, sweep.stderr
    assert re.match(
        r"parallel: at most 4 workers x 1 threads on \d+ cores, GPUs 5,7 with at most 2 runs each", sweep.stdout
    )
    entries = logged(tmp_path)
    assert {entry["number"] for entry in entries} == {0, 1, 2, 3, 4}
    workers = {entry["pid"]: entry["device"] for entry in entries}
    assert sorted(workers.values()) == ["5", "5", "7", "7"]
    assert all((entry["torch"], entry["omp"]) == (1, "1") for entry in entries)


def test_runs_that_share_a_device_give_the_table_of_the_serial_run(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    sweep = ("-m", "adapter=lora,lu", "seed=0,1", *SMALL)
    tables = []
    for name, module, words in (("serial", "xlora_bench", ()), ("shared", "tests.helpers.fake_devices", SHARED)):
        done = run(tmp_path / name, *sweep, *words, module=module)
        assert done.returncode == 0, done.stderr
        tables.append(next((tmp_path / name / "reports").iterdir()) / "table.md")
    assert "GPUs 0 with at most 2 runs each" in done.stdout
    assert tables[0].read_text() == tables[1].read_text()


def test_runs_are_the_same_as_in_the_serial_run(tmp_path):
    def sweep(name, *options):
        paths = (f"paths.results_dir={tmp_path / name}", f"paths.cache_dir={tmp_path / 'cache'}")
        return ["-m", "adapter=lora,lu", "seed=0,1", *SMALL, *options, *paths]

    for outcome in run_all([sweep("serial"), sweep("parallel", *PARALLEL)]):
        assert outcome.trained
        assert not outcome.errors
    pairs = list(zip(records(tmp_path / "serial"), records(tmp_path / "parallel"), strict=True))
    assert len(pairs) == 4
    for expected, actual in pairs:
        assert actual["machine"]["threads"] == expected["machine"]["threads"] == 1
        for key in ("run_id", "status", "metrics", "parameters", "hashes", "choices"):
            assert actual[key] == expected[key]
    tables = [next((tmp_path / folder / "reports").iterdir()) / "table.md" for folder in ("serial", "parallel")]
    assert tables[0].read_text() == tables[1].read_text()
