"""What a record says of the epochs of a run."""

from types import SimpleNamespace

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
    monkeypatch.setattr(train, "get_or_train", lambda _request: SimpleNamespace(status="completed"))
    parent = SimpleNamespace(run=SimpleNamespace(id="p", folder=tmp_path))
    child = SimpleNamespace(run=SimpleNamespace(id="c", config={"start_from": ["task=mnli"]}), parent=parent)
    assert train.parent_adapter(child) == tmp_path / "adapter_best.safetensors"
