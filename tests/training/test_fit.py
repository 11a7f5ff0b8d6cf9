"""What a record says of the epochs of a run."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from xxhash import xxh3_128_hexdigest

from tests.helpers.records import record
from xlora_bench.training import train
from xlora_bench.training.fit import metrics_of
from xlora_bench.training.loop.evaluation import Evaluation


def test_best_and_last_are_the_epochs_of_that_name():
    scores = {1: 0.5, 2: 0.9, 3: 0.7}
    epochs = [Evaluation(epoch=epoch, metrics={"accuracy": score}, splits={}) for epoch, score in scores.items()]
    assert metrics_of(epochs, "accuracy") == {
        "headline": "accuracy",
        "history": [{"epoch": epoch, "accuracy": score} for epoch, score in scores.items()],
        "best": {"epoch": 2, "accuracy": 0.9},
        "last": {"epoch": 3, "accuracy": 0.7},
    }
    assert metrics_of([], "accuracy") == {"headline": "accuracy", "history": []}


def test_a_child_starts_from_the_best_epoch_of_its_parent(tmp_path, monkeypatch):
    (tmp_path / "adapter_best.safetensors").touch()
    monkeypatch.setattr(train, "get_or_train", lambda _request: record("p"))
    parent = SimpleNamespace(run=SimpleNamespace(id="p", folder=tmp_path))
    child = SimpleNamespace(run=SimpleNamespace(id="c", config={"start_from": ["task=mnli"]}), parent=parent)
    assert train.parent_adapter(child) == tmp_path / "adapter_best.safetensors"


def test_a_parent_whose_adapter_was_changed_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "adapter_best.safetensors"
    path.write_bytes(b"changed")
    recorded = replace(record("p"), files={path.name: xxh3_128_hexdigest(b"trained")})
    monkeypatch.setattr(train, "get_or_train", lambda _request: recorded)
    parent = SimpleNamespace(run=SimpleNamespace(id="p", folder=tmp_path))
    child = SimpleNamespace(run=SimpleNamespace(id="c", config={"start_from": ["task=mnli"]}), parent=parent)
    with pytest.raises(ValueError, match=r"the parent run p is damaged: .*adapter_best.* rerun=true"):
        train.parent_adapter(child)
