"""The callback, in a small Hydra application that runs as a user's does."""

import dataclasses
import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import open_dict

from tests.helpers.names import ROOT
from tests.helpers.records import grid
from tests.runs.test_schema_1 import old_record
from xlora_bench.results.reports.wandb_table import log_report
from xlora_bench.results.tables.build_table import build_table
from xlora_bench.sweeps.planning import jobs
from xlora_bench.sweeps.planning.jobs import EndedJobs, Job, clear_jobs, read_job, read_jobs
from xlora_bench.sweeps.reporting.callback import SweepReport
from xlora_bench.sweeps.reporting.progress import duration, progress_line, span

pytestmark = [pytest.mark.slow, pytest.mark.process, pytest.mark.xdist_group("callback")]

FILES = {
    "config": """
defaults: [adapter: lora, logger: csv, override hydra/callbacks: report, _self_]
seed: 0
rerun: false
paths: {results_dir: multirun}
hydra: {sweep: {dir: "${paths.results_dir}/sweeps/${now:%H-%M-%S-%f}"}}
""",
    "adapter/lora": "{rank: 8, alpha: '${.rank}'}",
    "adapter/lora_again": "{rank: 8, alpha: '${.rank}'}",
    "adapter/lu": "{rank: 8, alpha: '${.rank}', kind: lu}",
    "logger/csv": "{}",
    "logger/wandb": "wandb: {_target_: xlora_bench.WandbLogs, project: toy, entity: null, mode: offline}",
    "paper/small": """
# @package _global_
defaults: [/config, _self_]
hydra: {mode: MULTIRUN, sweeper: {params: {adapter.rank: "2,8"}}}
paper:
  title: A published table
  source: nowhere
  status: memory
  rows: [adapter]
  columns: [model, adapter.rank]
  published: [{adapter: lora, model: bert, adapter.rank: 2, value: 0.5}]
""",
}


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    folder = tmp_path_factory.mktemp("app")
    report = (ROOT / "conf" / "hydra" / "callbacks" / "report.yaml").read_text()
    for name, text in {**FILES, "hydra/callbacks/report": report}.items():
        path = folder / "conf" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "WANDB_SILENT": "true"}

    def run(*arguments):
        command = [sys.executable, "-m", "tests.helpers.toy_app", "conf", *arguments]
        return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)

    return folder, run


@pytest.fixture(scope="module")
def failing(app):
    folder, run = app
    sweep = run("-m", "adapter=lora,lu,lora_again", "adapter.rank=2,13", "seed=0,1", "logger=wandb")
    (report,) = (folder / "multirun" / "reports").glob("sweep-*")
    return sweep, report


def test_every_run_has_its_line(failing):
    sweep, _ = failing
    lines = [line for line in sweep.stdout.splitlines() if line.startswith("run ")]
    assert len(lines) == 12
    assert lines[0].startswith("run 1 of 12 | adapter=lora adapter.rank=2 seed=0 | score 0.5200 | elapsed ")
    assert "| left " in lines[0]
    assert "score 0.5210 | mean 0.5205 over 2 |" in lines[1]
    assert "failed (RuntimeError: thirteen fails before its run is known)" in lines[2]
    assert "left" not in lines[11]


def test_a_failing_job_keeps_its_error_and_the_sweep_its_table(failing):
    sweep, report = failing
    assert sweep.returncode == 1
    assert "Error executing job with overrides" in sweep.stderr
    assert "thirteen fails" in sweep.stderr
    text = (report / "table.md").read_text()
    assert "| lora | 0.5205 ± 0.0007 (2) | 2 failed |" in text
    assert "- Failed: adapter=lu adapter.rank=13 seed=1 logger=wandb: RuntimeError: thirteen fails" in text
    assert "0.5205 ± 0.0007 (2)" in sweep.stdout
    assert len(pd.read_csv(report / "runs.csv")) == 12


def test_a_run_known_under_two_names_is_in_both_rows(failing):
    sweep, report = failing
    assert "adapter=lora_again adapter.rank=2 seed=0 | already done score 0.5200" in sweep.stdout
    assert "| lora_again | 0.5205 ± 0.0007 (2) | 2 failed |" in (report / "table.md").read_text()


def test_the_table_is_logged_to_wandb_in_the_sweeps_group(failing):
    _, report = failing
    (run,) = (report.parents[1] / "wandb").glob("offline-run-*")
    (table,) = run.rglob("*.table.json")
    assert len(json.loads(table.read_text())["data"]) == len(pd.read_csv(report / "table.csv"))
    reader = [str(Path(sys.executable).parent / "wandb"), "leet", "inspect", "--json", str(run)]
    answer = subprocess.run(reader, capture_output=True, text=True, check=True).stdout
    records = [json.loads(line) for line in answer.splitlines()]
    (about,) = (entry["run"] for entry in records if entry["type"] == "run")
    assert (about["project"], about["job_type"], about["run_group"]) == ("toy", "report", report.name)


def test_jobs_know_the_name_of_their_sweep(app, failing):
    folder, _ = app
    _, report = failing
    names = {path.read_text() for path in folder.glob("multirun/runs/*/sweep")}
    assert names == {report.name}


def test_a_second_sweep_reuses_the_runs_and_writes_to_the_same_place(app, failing):
    _, run = app
    _, report = failing
    before = (report / "table.csv").read_text()
    again = run("-m", "seed=0,1", "adapter=lora,lu,lora_again", "adapter.rank=2,13", "paths.results_dir=multirun")
    assert again.stdout.count("already done") == 6
    assert pd.read_csv(report / "table.csv").equals(pd.read_csv(pd.io.common.StringIO(before)))
    assert "wandb" not in again.stdout


def test_an_interrupted_sweep_shows_what_is_missing(app):
    folder, run = app
    sweep = run("-m", "adapter.rank=4,99,5", "paths.results_dir=interrupted")
    assert sweep.returncode != 0
    (report,) = (folder / "interrupted" / "reports").iterdir()
    assert "| lora | 0.5400 (1) | 1 missing | 1 missing |" in (report / "table.md").read_text()


def test_a_paper_is_a_primary_config_that_the_command_line_narrows(app):
    folder, run = app
    assert run("--config-name", "paper/small", "paths.results_dir=paper").returncode == 0
    assert run("--config-name", "paper/small", "adapter.rank=2", "paths.results_dir=paper").returncode == 0
    whole, narrow = sorted((folder / "paper" / "reports").iterdir(), key=lambda path: len(path.name))
    assert whole.name == "small"
    assert narrow.name.startswith("small-")
    assert "# A published table" in (whole / "table.md").read_text()
    assert len(pd.read_csv(whole / "runs.csv")) == 2
    assert len(pd.read_csv(narrow / "runs.csv")) == 1


def test_a_sweep_says_how_many_older_records_it_does_not_reuse(app):
    folder, run = app
    paths = [old_record(folder / "older", letter * 16) for letter in "ab"]
    before = [path.read_bytes() for path in paths]
    sweep = run("-m", "seed=0,1", "paths.results_dir=older")
    assert "2 older records (schema 1) are not reused" in sweep.stdout
    assert "already done" not in sweep.stdout
    assert [path.read_bytes() for path in paths] == before
    (report,) = (folder / "older" / "reports").iterdir()
    assert len(pd.read_csv(report / "runs.csv")) == 2
    assert "older records" not in run("-m", "seed=0,1", "paths.results_dir=newer").stdout


def test_a_single_run_says_nothing(app):
    folder, run = app
    single = run("paths.results_dir=single", "hydra.run.dir=single/run")
    assert single.returncode == 0, single.stderr
    assert "run 1" not in single.stdout
    assert not (folder / "single" / "reports").exists()


@pytest.mark.parametrize("known", [True, False])  # False: a sweeper of others tells no runs
def test_jobs_in_other_processes_report_through_files(app, known, tmp_path, capsys):
    folder, _ = app
    overrides = [f"paths.results_dir={tmp_path}", f"hydra.sweep.dir={tmp_path}/sweep"]
    with initialize_config_dir(str(folder / "conf"), version_base="1.3"):
        config = compose("paper/small", overrides, return_hydra_config=True)
        here = SweepReport()
        here.on_multirun_start(config)
        here._plan = here._plan if known else dataclasses.replace(here._plan, runs=[])
        for number, rank in enumerate((2, 8)):
            elsewhere = pickle.loads(pickle.dumps(here))
            elsewhere._plan = dataclasses.replace(elsewhere._plan, process=-1)
            job_config = here._plan.loader.load_sweep_config(config, [f"adapter.rank={rank}"])
            with open_dict(job_config):
                job_config.hydra.job.num = number
                job_config.hydra.runtime.output_dir = str(tmp_path)
            error = JobReturn(
                status=JobStatus.FAILED, overrides=[f"adapter.rank={rank}"], cfg=job_config, hydra_cfg=job_config
            )
            error.return_value = RuntimeError("lost\nlong story")
            elsewhere.on_job_start(job_config)
            elsewhere.on_job_end(job_config, error)
            assert error.cfg is error.hydra_cfg is None  # Hydra would keep them all until the sweep ends
        if known:
            assert "run 2 of 2 | adapter.rank=8 | failed (RuntimeError: lost)" in capsys.readouterr().out
        here.on_multirun_end(config)
        here.on_multirun_end(config)
    assert capsys.readouterr().out.count("A published table") == 1
    assert "| lora | 1 failed" in (tmp_path / "reports" / "small" / "table.md").read_text()


def test_a_wrong_paper_is_a_warning_and_no_failure(app, caplog):
    folder, _ = app
    with initialize_config_dir(str(folder / "conf"), version_base="1.3"):
        config = compose("paper/small", ["paper.source=''"], return_hydra_config=True)
        SweepReport().on_multirun_start(config)
    assert "has no `source`; say where it was published" in caplog.text


def test_wandb_absent_is_a_warning(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "wandb", None)
    log_report(build_table(grid(tmp_path, [{}]), title="t"), name="n", figures=[], settings={})
    assert "not logged to W&B" in caplog.text


def test_what_is_logged_to_wandb_is_plain_text(tmp_path, monkeypatch):
    tables, started = [], {}
    run = SimpleNamespace(log=lambda _values: None, finish=lambda: None)
    logged = SimpleNamespace(
        init=lambda **options: started.update(options) or run,
        Settings=dict,
        Table=lambda **options: tables.append(options),
    )
    monkeypatch.setitem(sys.modules, "wandb", logged)
    frame = pd.DataFrame({"a\x1b[2J": ["x\u202ey\nz", "=1+1"], "b": [0.5, float("nan")]})
    log_report(SimpleNamespace(to_frame=lambda: frame), name="<b>|😀\n/#" + "x" * 200, figures=[], settings={})
    assert re.fullmatch("report-_b_x{52}-[0-9a-f]{8}", started["id"])
    assert started["name"].startswith("<b>|😀 /#xxx")
    assert len(started["name"]) == 64
    assert tables == [
        {
            "columns": ["a\\x1b[2J", "b"],
            "data": [["x\\u202ey z", 0.5], ["'=1+1", None]],
            "allow_mixed_types": True,
        }
    ]


def job(number, **known):
    defaults = {"overrides": [f"seed={number}"], "choices": {}, "run_id": "c", "status": "completed", "score": 0.5}
    return Job(number=number, **({**defaults, "error": None, "reused": False} | known))


def test_jobs_are_read_back_and_partial_files_are_not(tmp_path):
    for number in (10, 2):
        job(number).write(tmp_path)
    (tmp_path / ".3.json.x.tmp").write_text("{")
    assert list(read_jobs(tmp_path)) == [2, 10]


def test_time_left_goes_by_the_runs_trained_now():
    ended, first = EndedJobs(Path()), job(0, reused=True)
    ended.add(first)
    assert "left" not in progress_line(first, ended=ended, runs=4, shown=["seed"], elapsed=30.0)
    assert progress_line(first, ended=ended, runs=0, shown=[], elapsed=1.0).startswith("run 1 of ? | seed=0 |")
    ended.add(job(1))
    line = progress_line(job(1), ended=ended, runs=4, shown=["seed"], elapsed=30.0)
    assert line.endswith("elapsed 30 s | left 1 min 00 s")


def test_each_process_reads_each_job_file_once(tmp_path, monkeypatch):
    read, whole = [], []
    monkeypatch.setattr(jobs, "read_job", lambda path: read.append(path.name) or read_job(path))
    copies = [EndedJobs(tmp_path) for _ in range(3)]
    for number in range(60):
        score = None if number % 7 == 3 else number / 10
        last = job(number, overrides=[f"lr={number % 2}", f"seed={number}"], score=score, reused=number % 5 == 0)
        whole.append(last)
        turn = copies[number**2 % 5 % 3]
        turn.end(last)
        assert sorted(turn.by_number.values(), key=whole.index) == whole
        assert turn.trained == {each.number for each in whole if not each.reused}
        assert sorted(turn.scores(last)) == [each.score for each in whole[number % 2 :: 2] if each.score is not None]
    assert len(read) <= 60 * len(copies)


def test_a_job_that_is_not_in_the_order_of_ends_is_known_to_the_next_process(tmp_path):
    job(0).write(tmp_path)  # its process was killed before it wrote the line
    anew = EndedJobs(tmp_path)
    anew.end(job(1))
    (tmp_path / jobs.ORDER).unlink()
    anew.end(job(2))
    anew.end(job(2, score=0.75))
    assert sorted(anew.by_number) == [0, 1, 2]
    clear_jobs(tmp_path)
    assert not list(tmp_path.iterdir())


def test_durations_have_two_units():
    assert [duration(seconds) for seconds in (5.4, 65, 3720)] == ["5 s", "1 min 05 s", "1 h 02 min"]
    day = 86400
    assert [duration(days * day) for days in (1, 1.5, 20.5)] == ["1 day", "1 day 12 h", "20 days"]
    assert duration(389444 * 3600) == "44 years"


def test_ranges_have_one_unit_each():
    assert span(20, 80) == "20 to 80 s"
    assert span(40, 8000) == "40 s to 2 h"
    assert span(5, 5.2) == "about 5 s"
    assert span(3 * 86400, 40 * 86400) == "3 to 40 days"
