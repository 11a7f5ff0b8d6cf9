import json

import pytest
from xxhash import xxh3_128_hexdigest

from tests.helpers.records import record
from tests.runs.test_schema_1 import old_record
from xlora_bench.results.frame.collect import collect
from xlora_bench.runs.read_records import _index as index_of
from xlora_bench.runs.read_records import read_records
from xlora_bench.runs.record import Record
from xlora_bench.sweeps.reporting.run_states import run_states

COUNT = 120


@pytest.fixture
def folder(tmp_path):
    for number in range(COUNT):
        known = {"score": number / COUNT, "config": {"adapter": {"rank": number}, "model": {"name": "m"}}}
        record(f"{number:03d}", **known).write(tmp_path / "runs" / f"{number:03d}" / "record.json")
    (tmp_path / "runs" / "damaged").mkdir()
    (tmp_path / "runs" / "damaged" / "record.json").write_text("{")
    (tmp_path / "runs" / "empty").mkdir()
    return tmp_path


def names_of(folder):
    return sorted(path.name for path in (folder / "runs").iterdir())


def test_records_of_the_index_are_those_of_the_files(folder, monkeypatch):
    def all_of(folder):
        index_of.cache_clear()
        records = read_records(folder, names_of(folder))
        assert list(records) == [name for name in names_of(folder) if name != "empty"]
        assert "cannot be read" in str(records.pop("damaged"))
        return records

    first = all_of(folder)
    assert first == {run_id: Record.read(folder / "runs" / run_id / "record.json") for run_id in first}
    read, opened = Record.read, []
    monkeypatch.setattr(Record, "read", lambda path: opened.append(path.parent.name) or read(path))
    assert all_of(folder) == first
    assert opened == ["damaged"]
    record("007", score=0.75).write(folder / "runs" / "007" / "record.json")
    assert all_of(folder)["007"].score == 0.75
    record("007", score=0.5).write(folder / "runs" / "007" / "record.json")
    assert read_records(folder, ["007"])["007"].score == 0.5  # in the same process
    (folder / "runs" / "008").rename(folder / "runs" / "elsewhere")
    assert "is of the run 008" in str(read_records(folder, ["elsewhere"])["elsewhere"])


def test_states_and_frame_are_the_same_with_and_without_the_index(folder):
    def both():
        index_of.cache_clear()
        return run_states(folder), collect(folder)

    (states, frame), (again, same) = both(), both()
    assert (folder / ".index" / "records.json").exists()
    assert again == states
    assert same.equals(frame)
    assert same.attrs == frame.attrs


def test_a_record_in_the_index_is_checked_as_one_in_a_file(folder):
    read_records(folder, names_of(folder))
    index = folder / ".index" / "records.json"
    content = json.loads(index.read_bytes().partition(b"\n")[2])
    top = content["files"]["003"][1]["="]
    content["parts"][top]["seed"] = "a text"
    content["parts"][content["files"]["004"][1]["="]]["run_id"] = "other"
    text = json.dumps(content).encode()
    index.write_bytes(xxh3_128_hexdigest(text).encode() + b"\n" + text)
    index_of.cache_clear()
    records = read_records(folder, names_of(folder))
    assert [run_id for run_id, each in records.items() if isinstance(each, ValueError)] == [
        "003",
        "004",
        "damaged",
    ]


def test_what_is_no_file_is_no_record(tmp_path):
    (tmp_path / "runs" / "a").mkdir(parents=True)
    (tmp_path / "runs" / "a" / "record.json").symlink_to("record.json")
    (tmp_path / "cells").touch()
    (tmp_path / "attempts" / "b" / "1").mkdir(parents=True)
    assert read_records(tmp_path, ["a", "b"]) == {}
    assert [(run.run_id, run.state) for run in run_states(tmp_path)] == [("a", "interrupted"), ("b", "interrupted")]


def test_an_attempt_does_not_take_the_record_of_schema_1_with_its_id(tmp_path):
    path = old_record(tmp_path)
    (tmp_path / "attempts" / path.parent.name / "1").mkdir(parents=True)
    (run,) = run_states(tmp_path)
    assert (run.state, run.record) == ("interrupted", None)
