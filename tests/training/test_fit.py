"""What a record says of the epochs of a run."""

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
