"""Attempts that travel: a run goes on from the last one that was sent here, unless there is a later one."""

import pytest

from tests.helpers.records import record
from xlora_bench.runs.run import Run, attempt_numbers, attempts_folder, newest_number
from xlora_bench.runs.sent_attempts import keep_attempt, kept_numbers, packed_attempt

LATER = 2**50


@pytest.fixture
def run(tmp_path):
    return Run(id="a", folder=tmp_path / "home" / "runs" / "a", config={}, choices={})


@pytest.fixture
def attempts(run):
    return attempts_folder(run.folder)


def sent(folder, text):
    """A packed attempt of another machine whose checkpoint is `text`."""
    attempt = folder / "node" / "attempts" / "a" / "5"
    (attempt / "checkpoint").mkdir(parents=True, exist_ok=True)
    (attempt / "checkpoint" / "last.ckpt").write_text(text)
    (attempt / "checkpoint" / "progress.json").write_text("{}")
    (attempt / "factors.csv").write_text("step")
    (attempt / ".half.tmp").write_text("being written")
    return packed_attempt(attempt, leave_out=attempt / "checkpoint" / "progress.json")


def files_of(run):
    return {
        path.relative_to(run.attempt).as_posix(): path.read_text() for path in run.attempt.rglob("*") if path.is_file()
    }


def test_the_next_attempt_goes_on_from_the_last_that_was_sent(run, attempts, tmp_path):
    for number in (3, 5):
        keep_attempt(sent(tmp_path, f"epoch {number}"), attempts, number)
    assert kept_numbers(attempts) == [5]
    assert newest_number(run.folder) == 5
    new = run.start(rerun=False)
    assert files_of(new) == {"checkpoint/last.ckpt": "epoch 5", "factors.csv": "step"}
    assert attempt_numbers(run.folder) == [new.number]
    assert kept_numbers(attempts) == []


@pytest.mark.parametrize("number", [5, LATER])
def test_of_an_attempt_here_and_one_that_was_sent_the_later_one_is_used(run, attempts, tmp_path, number):
    here = run.start(rerun=False)
    here.checkpoint.write_text("here")
    keep_attempt(sent(tmp_path, "sent"), attempts, number)
    assert newest_number(run.folder) == max(here.number, number)
    new = run.start(rerun=False)
    assert new.number > max(here.number, number)
    assert new.checkpoint.read_text() == ("sent" if number == LATER else "here")
    assert [path.name for path in attempts.iterdir()] == [str(new.number)]


def test_a_run_that_is_trained_again_or_has_ended_uses_none(run, attempts, tmp_path):
    keep_attempt(sent(tmp_path, "sent"), attempts, LATER)
    new = run.start(rerun=True)
    assert files_of(new) == {}
    keep_attempt(sent(tmp_path, "sent"), attempts, LATER)
    new.end(record("a"))
    assert not attempts.exists()


@pytest.mark.parametrize("damage", [lambda content: content[:700], lambda content: b"", lambda content: b"x" * 900])
def test_a_damaged_one_is_named_and_the_run_starts_over(run, attempts, tmp_path, damage, caplog):
    keep_attempt(damage(sent(tmp_path, "sent" * 300)), attempts, 5)
    new = run.start(rerun=False)
    assert files_of(new) == {}
    assert "5.tar cannot be unpacked" in caplog.text
    assert [path.name for path in attempts.iterdir()] == [str(new.number)]
