"""Sweeps that run, with an application that leaves records without training (score: 0.5 + rank/100 + seed/1000)."""

import atexit
import errno
import os
import sys

import hydra
import pandas as pd
import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.types import RunMode

from tests.helpers import toy_app
from xlora_bench.sweeps.outcome import RunsFailedError
from xlora_bench.sweeps.planning.jobs import read_jobs

pytestmark = pytest.mark.slow


@pytest.fixture
def sweep(conf, tmp_path, monkeypatch, capsys):
    """Return a function that sweeps and returns what was printed and the folder of the report."""
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.setattr("xlora_bench.results.reports.report.write_figures", lambda *_args, **_options: None)
    monkeypatch.setattr(atexit, "register", lambda _function: None)  # the table of a sweep that was stopped

    def run(*arguments):
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["toy", "-m", *arguments, f"paths.results_dir={tmp_path}"])
        hydra.main(version_base="1.3", config_path=str(conf), config_name="config")(toy_app.main)()
        (report,) = (tmp_path / "reports").iterdir()
        return capsys.readouterr().out, report

    return run


RULES = "grid=[{when:{adapter:lu},set:{adapter.rank:4}},{when:{adapter:lora,adapter.rank:2},exclude:why not}]"


def test_the_progress_and_the_table_have_the_runs_after_the_rules(sweep):
    out, report = sweep("adapter=lora,lu", "adapter.rank=2,8", RULES, "seed=0,1")
    # adapter.rank is on the command line, so the rule leaves lu's ranks alone
    assert [line.split(" | ")[1] for line in out.splitlines() if line.startswith("run ")] == [
        *(
            f"adapter={name} adapter.rank={rank} seed={seed}"
            for name, rank in (("lora", 8), ("lu", 2), ("lu", 8))
            for seed in (0, 1)
        ),
    ]
    assert "run 6 of 6" in out
    table = (report / "table.md").read_text()
    assert "- Left out: adapter=lora adapter.rank=2: why not" in table
    assert len(pd.read_csv(report / "runs.csv")) == 6


@pytest.mark.parametrize("launcher", [[], ["hydra/launcher=parallel"]], ids=["basic", "parallel"])
def test_twenty_jobs_are_composed_once(sweep, monkeypatch, launcher):
    composed = []
    real = ConfigLoaderImpl.load_configuration

    def load(loader, *args, run_mode, **options):
        composed.append(run_mode)
        return real(loader, *args, run_mode=run_mode, **options)

    monkeypatch.setattr(ConfigLoaderImpl, "load_configuration", load)
    _, report = sweep(*launcher, "adapter.rank=range(1,11)", "seed=0,1")
    assert len(pd.read_csv(report / "runs.csv")) == 20
    assert composed.count(RunMode.RUN) == 1  # Hydra composes the config of the sweep itself as MULTIRUN


def test_a_failing_job_leaves_the_others_alone_and_is_raised_at_the_end(sweep, tmp_path):
    with pytest.raises(RuntimeError, match="thirteen fails"):
        sweep("adapter.rank=13,8,4")
    (report,) = (tmp_path / "reports").iterdir()
    assert sorted(pd.read_csv(report / "runs.csv").status) == ["completed", "completed", "failed"]


@pytest.mark.parametrize("case", ["serial", "parallel", "full disk"])
def test_a_job_whose_hydra_folder_cannot_be_written_fails_alone(sweep, tmp_path, capsys, monkeypatch, case):
    full_disk, launcher = case == "full disk", ["hydra/launcher=parallel"] * (case == "parallel")
    folder = tmp_path / "hydra"
    blocked = folder / "1" / ("" if full_disk else ".hydra")
    blocked.parent.mkdir(parents=True)
    if full_disk:
        real = hydra.core.utils._save_config

        def save(config, name, output):
            if output.parent.name == "1":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            real(config, name, output)

        monkeypatch.setattr(hydra.core.utils, "_save_config", save)
    else:
        blocked.write_text("")
    with pytest.raises(RunsFailedError) as caught:
        sweep(*launcher, "adapter.rank=2,4,8", f"hydra.sweep.dir={folder}")
    assert caught.value.exit_code == 2
    line = str(caught.value)
    assert line.startswith("1 of 3 runs failed, the first (adapter.rank=4): ")
    assert str(folder / "1") in line
    assert "\n" not in line
    (report,) = (tmp_path / "reports").iterdir()
    assert sorted(pd.read_csv(report / "runs.csv").status) == ["completed", "completed", "failed"]
    (printed,) = [each for each in capsys.readouterr().out.splitlines() if "adapter.rank=4" in each and "run " in each]
    assert "failed" in printed
    assert str(folder / "1") in printed
    assert [job.status for job in read_jobs(folder / "jobs").values()] == ["completed", "failed", "completed"]


TUNING = "tuning={seed:9,holdout:5,trials:3,space:[{adapter.rank:[2,4,13]}],by:[adapter,task]}"


def test_trials_run_first_and_the_table_has_a_fixed_and_a_tuned_column(sweep, tmp_path):
    with pytest.raises(RuntimeError, match="thirteen fails"):  # that trial is not the best of any
        sweep("adapter=lora,lu", "seed=0,1", TUNING)
    (report,) = (tmp_path / "reports").iterdir()
    rows = pd.read_csv(report / "table.csv")
    means = {(row.adapter, row.tuning): (row.mean, row.n) for row in rows.itertuples()}
    assert means == {
        (name, kind): (pytest.approx(mean), 2)
        for name in ("lora", "lu")
        for kind, mean in (("fixed", 0.5805), ("tuned", 0.5405))
    }
    trials = pd.read_csv(report / "trials.csv")
    assert trials.score.dropna().tolist() == pytest.approx([0.529, 0.549] * 2)
    assert set(trials.seed.dropna()) == {9}
    assert set(trials["task.holdout"].dropna()) == {5}
    curve = pd.read_csv(report / "expected_best.csv")
    of_k = [0.549 - 0.02 * (2 / 3) ** k for k in (1, 2, 3)]  # the trial that failed counts as the lowest, 0.529
    assert curve.expected_best.tolist() == pytest.approx(of_k * 2)
    assert (report / "expected_best.png").exists()
    assert "Tuned: lora cola: adapter.rank 4" in (report / "table.md").read_text()


def test_a_tuned_sweep_goes_on_after_a_stop(sweep):
    tuning = TUNING.replace(",13]", "]").replace("trials:3", "trials:2")
    with pytest.raises(KeyboardInterrupt):  # a rank of 99 stops the application; its table comes when the process ends
        sweep("adapter=lora", "seed=0", tuning.replace("[2,4]", "[2,99]"))
    again, _ = sweep("adapter=lora", "seed=0", tuning)
    assert [("already done" in line) for line in again.splitlines() if line.startswith("run ")] == [True] + [False] * 3
