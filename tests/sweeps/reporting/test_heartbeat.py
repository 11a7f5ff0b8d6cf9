"""The line on the runs under way, between those of the ended runs."""

import json
import time
from types import SimpleNamespace

import pytest

from xlora_bench.runs.claim import Claim
from xlora_bench.sweeps.reporting import heartbeat
from xlora_bench.sweeps.reporting.heartbeat import Heartbeat, RunsUnderWay, pause


@pytest.fixture
def plan(tmp_path):
    """The plan of a sweep of four runs."""
    (tmp_path / "hydra" / "jobs").mkdir(parents=True)
    return SimpleNamespace(
        jobs=tmp_path / "hydra" / "jobs",
        results_dir=tmp_path,
        name="sweep-1",
        runs=[None] * 4,
        shown={"adapter", "seed"},
        started=time.time() - 65,
    )


def start(plan, number, run_id, *overrides, folder=None, **progress):
    """Let the job of a run start; return the claim of the run, and write how far it is, if that is known."""
    job = (folder or plan.jobs.parent) / str(number)
    job.mkdir(parents=True)
    (job / "run.json").write_text(json.dumps({"run_id": run_id, "overrides": list(overrides)}))
    checkpoint = plan.results_dir / "attempts" / run_id / "1" / "checkpoint"
    checkpoint.mkdir(parents=True)
    if progress:
        (checkpoint / "progress.json").write_text(json.dumps({"time": time.time() - 2, **progress}))
    claim = Claim(plan.results_dir / "claims" / run_id)
    assert claim.take()
    return claim


def test_the_line_names_the_runs_under_way_and_how_far_they_are(plan):
    runs, some = RunsUnderWay(), plan.runs
    plan.runs = []
    assert runs.line(plan) == (0, "the runs are being checked | elapsed 1 min 05 s")
    plan.runs = some
    assert runs.line(plan) == (0, "0 of 4 runs ended | elapsed 1 min 05 s")
    (plan.jobs / "3.json").write_text("{}")
    (plan.jobs / "order.txt").write_text("3\n")
    far = {"epoch": 1, "step": 30, "steps": 90, "seconds_left": 80.0}
    with start(plan, 0, "a", "adapter=lu", "seed=0", "task=x", **far), start(plan, 1, "b", "adapter=lora", "seed=0"):
        assert runs.line(plan) == (
            1,
            "1 of 4 runs ended | adapter=lu seed=0: epoch 2, step 30 of 90, 2 s ago, left 1 min 20 s; "
            "adapter=lora seed=0: starting | elapsed 1 min 05 s",
        )
    assert runs.line(plan)[1] == "1 of 4 runs ended | elapsed 1 min 05 s"  # no process holds their claims


def test_runs_of_other_sweeps_are_left_out_and_those_of_tasks_of_slurm_are_not(plan):
    elsewhere = plan.results_dir / "hydra" / "other"
    tasks = plan.results_dir / "slurm" / "sweep-1" / "hash"
    runs = RunsUnderWay()
    with start(plan, 0, "a", "seed=7", folder=elsewhere), start(plan, 5, "b", "seed=8", folder=tasks):
        assert "| seed=8: starting |" in runs.line(plan)[1]
        assert "seed=7" not in runs.line(plan)[1]


def test_of_many_runs_three_are_named(plan):
    claims = [start(plan, number, f"{number}", f"seed={number}") for number in range(9)]
    assert "seed=2: starting; 6 more | elapsed" in RunsUnderWay().line(plan)[1]
    for claim in claims:
        claim.__exit__()


def test_elsewhere_than_on_a_terminal_it_prints_only_while_no_run_ends(capsys, monkeypatch):
    monkeypatch.setattr(heartbeat, "LEAST_SECONDS", 0.01)
    looks = iter([(0, "a"), (1, "b"), (1, "c"), (2, "d"), (2, "e")])

    def line():
        look = next(looks, None)
        if look is None:
            raise ValueError("an error is no end")
        return look

    beat = Heartbeat(line)
    time.sleep(0.5)
    beat.stop()
    assert capsys.readouterr().out == "a\nc\ne\n"


def test_a_long_sweep_prints_few_of_them():
    assert pause(0.0) == pause(199.0) == 20
    elapsed, lines = 0.0, 0
    while elapsed < 24 * 3600:
        elapsed, lines = elapsed + pause(elapsed), lines + 1
    assert lines < 200
    assert pause(elapsed) == 600
