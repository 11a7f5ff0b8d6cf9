"""`status`: the state of every run of a folder, from what sweeps and runs leave in it."""

import json
import os
import shutil
import stat
import time
from dataclasses import replace
from socket import gethostname

import pytest

from tests.helpers.records import grid, record
from xlora_bench.cli.status import main
from xlora_bench.runs.claim import Claim
from xlora_bench.runs.command_line import CommandLine
from xlora_bench.runs.record import Record, run_files
from xlora_bench.sweeps.planning.jobs import Job, PlannedRun
from xlora_bench.sweeps.planning.plan_file import SweepPlan
from xlora_bench.sweeps.reporting.run_states import run_states
from xlora_bench.system.io import hashes_of

HERE = f"process {os.getpid()} on {gethostname()}"
LINE = CommandLine(config_name="config", config_dir=None, hydra=())


def sweep(folder, name, *runs, jobs=(), line=LINE):
    """Write the Hydra folder of a sweep: its plan, and the ids of the runs that have started."""
    place = folder / "hydra" / "2026-01-01" / name
    place.mkdir(parents=True)
    SweepPlan(command_line=line, runs=tuple(PlannedRun(overrides=tuple(lines)) for lines, _ in runs)).write(place)
    for number, (_, run_id) in enumerate(runs):
        if run_id:
            (place / str(number)).mkdir()
            (place / str(number) / "run.json").write_text(json.dumps({"run_id": run_id}))
    for job in jobs:
        job.write(place / "jobs")
    os.utime(place / "plan.json", (int(name), int(name)))
    return place


def job(number, run_id, error):
    return Job(
        number=number, overrides=[], choices={}, run_id=run_id, status="failed", score=None, error=error, reused=False
    )


@pytest.fixture
def mixed(tmp_path):
    """A folder with a run in every state; yields while one of them is claimed."""
    for name, status, reason in (
        ("a", "completed", None),
        ("b", "collapsed", "constant"),
        ("c", "failed", "OSError: x"),
    ):
        record(name, status=status, reason=reason).write(tmp_path / "runs" / name / "record.json")
    for name in ("d", "e"):
        (tmp_path / "attempts" / name / "1" / "checkpoint").mkdir(parents=True)
    (tmp_path / "attempts" / "e" / "1" / "checkpoint" / "last.ckpt").touch()
    progress = {"epoch": 1, "step": 30, "steps": 90, "time": time.time() - 7, "seconds_left": 80.0}
    (tmp_path / "attempts" / "d" / "1" / "checkpoint" / "progress.json").write_text(json.dumps(progress))
    ids = ["a", "b", "c", "d", "e", None, None]
    runs = [
        (["adapter=lu", f"seed={seed}", f"paths.results_dir={tmp_path}"], run_id) for seed, run_id in enumerate(ids)
    ]
    sweep(tmp_path, "1", *runs, jobs=[job(5, None, "ValueError: no such rank")])
    claim = Claim(tmp_path / "claims" / "d")
    assert claim.take()
    with claim:
        yield tmp_path


def shown(folder, capsys):
    assert main([str(folder), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_every_state_with_its_reason(mixed, capsys):
    content = shown(mixed, capsys)
    assert content["counts"] == {
        "planned": 1, "running": 1, "interrupted": 1, "completed": 1, "collapsed": 1, "failed": 2
    }  # fmt: skip
    states = {run["overrides"]["seed"]: (run["state"], run["run_id"], run["reason"]) for run in content["runs"]}
    assert states == {
        "0": ("completed", "a", None),
        "1": ("collapsed", "b", "constant"),
        "2": ("failed", "c", "OSError: x"),
        "3": (
            "running",
            "d",
            f"process {os.getpid()} on {gethostname()}, epoch 2, step 30 of 90, 7 s ago, left 1 min 20 s",
        ),
        "4": ("interrupted", "e", "goes on from its last whole epoch when it is asked for again"),
        "5": ("failed", None, "ValueError: no such rank"),
        "6": ("planned", None, None),
    }
    assert all(run["overrides"].keys() == {"seed"} for run in content["runs"])  # adapter and paths do not vary


def test_the_table_has_a_line_per_run_and_starts_with_the_counts(mixed, capsys):
    assert main([str(mixed)]) == 0
    out = capsys.readouterr().out.splitlines()
    counts = "1 planned, 1 running, 1 interrupted, 1 completed, 1 collapsed, 2 failed"
    assert out[0] == f"7 runs in {mixed}: {counts}"
    assert [line.split("│")[1].strip() for line in out if line.startswith("│")] == [
        "planned", "running", "interrupted", "completed", "collapsed", "failed", "failed"
    ]  # fmt: skip


def test_nothing_is_written_and_a_read_only_folder_is_fine(mixed, capsys):
    def content():
        return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in sorted(mixed.rglob("*"))}

    before = content()
    folders = [path for path in [mixed, *mixed.rglob("*")] if path.is_dir()]
    for folder in folders:
        folder.chmod(stat.S_IREAD | stat.S_IEXEC)
    claims = list((mixed / "claims").iterdir())
    for claim in claims:
        claim.chmod(stat.S_IREAD)
    try:
        assert shown(mixed, capsys)["counts"]["running"] == 1
        assert content() == before
    finally:
        for path in (*folders, *claims):
            path.chmod(0o700)


def test_a_run_that_a_later_sweep_asks_for_again_is_listed_once(tmp_path):
    record("a").write(tmp_path / "runs" / "a" / "record.json")
    sweep(tmp_path, "1", (["seed=0"], "a"), (["seed=1"], None), jobs=[job(1, None, "ValueError: x")])
    sweep(tmp_path, "2", (["seed=1", "rerun=true"], None), (["seed=0", "paths.results_dir=x"], None))
    assert [(run.state, run.value("seed")) for run in run_states(tmp_path)] == [("planned", "1"), ("completed", "0")]


def test_a_worker_that_was_killed_leaves_a_failed_run(tmp_path):
    (tmp_path / "attempts" / "a" / "1" / "checkpoint").mkdir(parents=True)
    sweep(tmp_path, "1", (["seed=0"], "a"), jobs=[job(0, "a", "WorkerLostError: killed")])
    (run,) = run_states(tmp_path)
    assert (run.state, run.reason) == ("failed", "WorkerLostError: killed")


def test_without_hydras_folder_the_records_tell_what_varies(tmp_path, capsys):
    grid(tmp_path, [{"adapter": "lora", "seed": 0}, {"adapter": "lu", "seed": 0}])
    content = shown(tmp_path, capsys)
    assert [run["overrides"] for run in content["runs"]] == [{"adapter": "lora"}, {"adapter": "lu"}]


def test_a_folder_without_runs_and_no_folder_are_one_line(tmp_path, capsys):
    assert main([str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"no run in {tmp_path} yet\n"
    with pytest.raises(SystemExit) as stop:
        main([str(tmp_path / "nothing")])
    assert stop.value.code == 1
    error = capsys.readouterr().err
    assert "nothing` is not a folder; name the results folder" in error
    assert len(error.splitlines()) == 1


def test_unreadable_files_do_not_stop_it(tmp_path, caplog):
    grid(tmp_path, [{}])
    (tmp_path / "runs" / f"{0:016x}" / "record.json").write_text("{")
    place = sweep(tmp_path, "1", (["seed=0"], None))
    (place / "plan.json").write_text("[]")
    (run,) = run_states(tmp_path)
    assert run.state == "failed"
    assert "delete it to train its run again" in run.reason
    assert "its runs are listed once they have started" in caplog.text


def test_files_are_compared_with_their_records(tmp_path, capsys):
    grid(tmp_path, [{}])
    (path,) = (tmp_path / "runs").glob("*/record.json")
    (path.parent / "factors.csv").write_text("x")
    replace(Record.read(path), files=hashes_of(path.parent, run_files(path.parent))).write(path)
    assert main([str(tmp_path), "--check"]) == 0
    assert "1 files compared, 0 damaged" in capsys.readouterr().err
    (path.parent / "factors.csv").write_text("y")
    assert main([str(tmp_path), "--check"]) == 1
    error = capsys.readouterr().err
    assert f"{path.parent / 'factors.csv'} is not the file that the record describes" in error
    assert "1 files compared, 1 damaged; rerun=true trains a run again" in error


def test_of_many_runs_the_failed_and_running_ones_are_listed_unless_all_are_asked_for(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("xlora_bench.cli.status.SHOWN", 2)
    for name in ("a", "b", "c"):
        record(name).write(tmp_path / "runs" / name / "record.json")
    record("z", status="failed", reason="OSError: x").write(tmp_path / "runs" / "z" / "record.json")
    assert main([str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert [line.split("│")[2].strip() for line in out.splitlines() if line.startswith("│")] == ["a", "z"]
    assert out.splitlines()[-1] == "2 more runs; --all lists them, --json prints them for programs"
    assert main([str(tmp_path), "--all"]) == 0
    assert "more runs" not in capsys.readouterr().out


def test_workers_in_slurm_know_the_run_ids_and_the_driver_the_launcher(tmp_path):
    (tmp_path / "attempts" / "a" / "1").mkdir(parents=True)
    lines = ["adapter=lu", "seed=0"]
    driver = sweep(tmp_path, "1", (lines, None), line=replace(LINE, hydra=("hydra/launcher=slurm",)))
    worker = ("hydra/launcher=slurm_worker", "hydra.launcher.index=0", "hydra.searchpath=[x]")
    place = sweep(tmp_path, "2", ([*lines, "paths.results_dir=x"], "a"), line=replace(LINE, hydra=worker))
    (tmp_path / "slurm" / "sweep").mkdir(parents=True)
    place.rename(tmp_path / "slurm" / "sweep" / "b")
    (run,) = run_states(tmp_path)
    assert (run.run_id, run.state, run.command_line.hydra) == ("a", "interrupted", ("hydra/launcher=slurm",))
    (driver / "plan.json").unlink()
    (run,) = run_states(tmp_path)
    assert (run.run_id, run.command_line.hydra) == ("a", ("hydra.searchpath=[x]",))


def test_watch_prints_how_far_each_run_is_until_all_have_ended(mixed, capsys, monkeypatch):
    def finish(seconds):
        progress = {"epoch": 2, "step": 60, "steps": 90, "time": time.time(), "seconds_left": None}
        (mixed / "attempts" / "d" / "1" / "checkpoint" / "progress.json").write_text(json.dumps(progress))
        if len(looked) == 2:
            for name in ("d", "e"):
                record(name).write(mixed / "runs" / name / "record.json")
                shutil.rmtree(mixed / "attempts" / name)
            shutil.rmtree(mixed / "hydra")
        looked.append(seconds)

    looked = [2.0]
    monkeypatch.setattr("xlora_bench.cli.status.time.sleep", finish)
    assert main([str(mixed), "--watch"]) == 0
    lines = capsys.readouterr().out.splitlines()
    counts = [line.partition(": ")[2] for line in lines if " runs in " in line]
    assert [line for line in lines if "step" in line] == [
        f"d: {HERE}, epoch 2, step 30 of 90, 7 s ago, left 1 min 20 s",
        f"d: {HERE}, epoch 3, step 60 of 90, 0 s ago",
    ]
    assert counts[-1] == "3 completed, 1 collapsed, 1 failed"
