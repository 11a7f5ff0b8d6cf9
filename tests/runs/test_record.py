import json
import math
import os

import numpy as np
import pytest

from tests.helpers.records import record
from xlora_bench.runs.record import NewerRecordError, Record, finished


def test_survives_the_disk_with_numbers_that_are_not_finite(tmp_path):
    epoch = {"accuracy": np.float32(0.5), "loss": math.nan, "norm": math.inf}
    metrics = {"headline": "accuracy", "history": [epoch], "best": epoch, "last": epoch}
    written = record("a", metrics=metrics, config={"name": "NaN"})
    written.write(tmp_path / "a" / "record.json")
    text = (tmp_path / "a" / "record.json").read_text()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    back = Record.read(tmp_path / "a" / "record.json")
    assert math.isnan(back.metrics["best"]["loss"])
    assert back.metrics["best"]["norm"] == math.inf
    assert back.config == {"name": "NaN"}
    assert back.score == 0.5


@pytest.mark.parametrize("length", [0, 1, 100, -3])
def test_a_truncated_file_is_never_a_record(tmp_path, length):
    path = tmp_path / "record.json"
    record("a").write(path)
    path.write_text(path.read_text()[:length])
    with pytest.raises(ValueError, match=r"record\.json"):
        Record.read(path)
    assert finished(path) is None


@pytest.mark.parametrize(
    "change",
    [{"schema": 3}, {"status": "fine"}, {"metrics": {}}, {"extra": 1}, {"metrics": None}, {"cost": None}],
)
def test_a_file_of_another_shape_is_refused(tmp_path, change):
    path = tmp_path / "record.json"
    record("a").write(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ValueError, match=r"not a record|from a newer version"):
        Record.read(path)


def test_a_folder_or_nothing_is_refused(tmp_path):
    with pytest.raises(ValueError, match="cannot be read"):
        Record.read(tmp_path)
    with pytest.raises(ValueError, match="cannot be read"):
        Record.read(tmp_path / "nothing.json")
    assert finished(tmp_path / "nothing.json") is None


def test_done_and_collapsed_are_finished_but_failed_is_not(tmp_path):
    for status, expected in (("completed", True), ("collapsed", True), ("failed", False)):
        record("a", status=status).write(tmp_path / "record.json")
        assert (finished(tmp_path / "record.json") is not None) is expected


def test_killed_while_writing_leaves_the_old_record(tmp_path, monkeypatch):
    path = tmp_path / "record.json"
    record("a", score=0.25).write(path)
    partial = tmp_path / ".record.json.x.tmp"
    partial.write_text('{"run": "a", "sta')

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        record("a", score=0.75).write(path)
    assert Record.read(path).score == 0.25
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [partial.name, "record.json"]


def test_values_that_json_has_no_word_for_are_an_error_and_leave_no_file(tmp_path):
    with pytest.raises(TypeError):
        record("a", config={"x": object()}).write(tmp_path / "record.json")
    assert list(tmp_path.iterdir()) == []


def test_a_record_of_a_newer_version_is_neither_read_nor_taken_for_none(tmp_path):
    path = tmp_path / "record.json"
    record("a").write(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": 3}))
    with pytest.raises(NewerRecordError, match="from a newer version"):
        finished(path)
