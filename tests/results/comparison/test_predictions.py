import numpy as np
import pytest

from tests.helpers.simulated_sweeps import sweep, write
from xlora_bench.results.comparison import predictions
from xlora_bench.results.comparison.build import compare
from xlora_bench.results.comparison.predictions import PredictionsIndex
from xlora_bench.results.comparison.text import to_frame
from xlora_bench.results.frame.pivot_axes import find_pivot_axes
from xlora_bench.system import file_index


@pytest.fixture
def swept(tmp_path, monkeypatch):
    monkeypatch.setattr(file_index, "LEAST", 1)
    return sweep(tmp_path, {"lora": 0.0, "full": 1.0}, tasks=("sst2", "cola", "stsb"), examples=60), tmp_path


@pytest.fixture
def opened(monkeypatch):
    """The runs whose predictions were read."""
    runs, read = [], predictions.read_main_split
    monkeypatch.setattr(
        predictions, "read_main_split", lambda path, *columns: runs.append(path.parent.name) or read(path, *columns)
    )
    return runs


def compared(frame, folder):
    comparison = compare(frame, axes=find_pivot_axes(frame), row_labels={}, results_dir=folder)
    return to_frame(comparison), [note for column in comparison.columns for note in column.notes]


def test_predictions_are_read_once_until_they_change(swept, opened):
    frame, folder = swept
    first, notes = compared(frame, folder)
    assert opened == list(frame["run_id"])
    assert first["p_seeds_and_examples"].notna().sum() == 3
    opened.clear()
    again, same_notes = compared(frame, folder)
    assert opened == []
    assert again.equals(first)
    assert same_notes == notes == []
    write(folder, "cola-full-2", np.zeros(60), np.zeros(60))
    _, notes = compared(frame, folder)
    assert opened == ["cola-full-2"]
    assert notes == [
        "Not compared by example, predictions that give another matthews than the score, in the best epoch and in the "
        "last: cola-full-2."
    ]


def test_a_run_with_other_examples_is_left_out_at_each_look(swept):
    frame, folder = swept
    write(folder, "sst2-full-3", np.ones(60), np.ones(60))
    frame.loc[frame["run_id"] == "sst2-full-3", "score"] = 1.0
    notes = ["Not compared by example, evaluated on other examples than the first run of the column: sst2-full-3."]
    assert [compared(frame, folder)[1] for _ in range(2)] == [notes, notes]


def test_each_metric_and_each_best_epoch_has_its_own_entry(tmp_path, monkeypatch, opened):
    monkeypatch.setattr(file_index, "LEAST", 1)
    labels, last = np.array([0, 0, 0, 1, 1]), np.array([0, 0, 1, 1, 1])
    first = last[::-1]  # in epoch 1, none is right
    write(tmp_path, "run", labels, last)
    for _ in range(2):
        index = PredictionsIndex(tmp_path)
        for metric, score, best, expected in (("accuracy", 0.8, 2, last), ("f1", 0.8, 2, last), ("f1", 0.0, 1, first)):
            result = index.reported("run", metric=metric, score=score, best=best)
            assert {name: array.tolist() for name, array in result.items()} == {
                "idx": list(range(5)),
                "label": labels.tolist(),
                "prediction": expected.tolist(),
            }
        with pytest.raises(ValueError, match="another f1 than the score"):
            index.reported("run", metric="f1", score=0.0, best=2)
        index.write()
    assert len(opened) == 3
