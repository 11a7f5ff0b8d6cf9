"""Runs that travel: what a run that comes home replaces."""

import pytest

from tests.helpers.records import record
from xlora_bench.runs.parcel import packed, publish_packed
from xlora_bench.runs.record import Record
from xlora_bench.runs.run import Run, attempt_numbers

HOURS = [f"2026-01-01T{hour:02d}:00:00+00:00" for hour in range(4)]


def run_at(results_dir, **known):
    """Publish a run as a process on that machine does; return its folder."""
    run = Run(id="a", folder=results_dir / "runs" / "a", config={}, choices={}).start(rerun=True)
    (run.attempt / "adapter.safetensors").write_bytes(known["finished"].encode())
    run.end(record("a", **known))
    return run.folder


@pytest.fixture
def home(tmp_path):
    """The folder of a run at home, which ended at hour 0."""
    return run_at(tmp_path / "home", finished=HOURS[0])


def content(tmp_path, name, **known):
    return packed(run_at(tmp_path / name, **known))


def test_a_run_that_was_trained_again_replaces_the_record_that_it_was_to_replace(home, tmp_path):
    publish_packed(content(tmp_path, "node", finished=HOURS[1]), home, replaces=HOURS[0])
    assert Record.read(home / "record.json").finished == HOURS[1]
    assert (home / "adapter.safetensors").read_bytes() == HOURS[1].encode()
    assert attempt_numbers(home) == []


def test_without_a_record_to_replace_the_first_one_stays(home, tmp_path):
    publish_packed(content(tmp_path, "node", finished=HOURS[1]), home)
    assert Record.read(home / "record.json").finished == HOURS[0]


def test_the_first_of_two_publishers_wins(home, tmp_path):
    for hour, name in ((2, "first"), (1, "second"), (3, "third")):
        publish_packed(content(tmp_path, name, finished=HOURS[hour]), home, replaces=HOURS[0])
        assert Record.read(home / "record.json").finished == HOURS[2]


def test_a_failed_run_replaces_a_failed_one_alone(home, tmp_path):
    failed = content(tmp_path, "node", status="failed", finished=HOURS[1])
    publish_packed(failed, home, replaces=HOURS[0])
    assert Record.read(home / "record.json").finished == HOURS[0]
    assert attempt_numbers(home) == []
    other = run_at(tmp_path / "other", status="failed", finished=HOURS[0])
    publish_packed(failed, other)
    assert Record.read(other / "record.json").finished == HOURS[1]


def test_a_publisher_that_lost_its_claim_leaves_what_is_there(home, tmp_path, caplog):
    later = Record.read(home / "record.json").as_json() | {"attempt": 2**62}  # published while this one was frozen
    Record.from_json(later).write(home / "record.json")
    publish_packed(content(tmp_path, "node", finished=HOURS[1]), home, replaces=HOURS[0])
    assert Record.read(home / "record.json").finished == HOURS[0]
    assert attempt_numbers(home) == []
    assert "is thrown away" in caplog.text
