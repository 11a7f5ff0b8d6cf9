"""A run's id is a hash of its config, data and parent."""

from dataclasses import replace

import pytest
import torch
from xxhash import xxh3_128_hexdigest

from tests.helpers.records import record
from xlora_bench.runs.claim import ClaimLostError
from xlora_bench.runs.record import damages, finished
from xlora_bench.runs.run import Run, is_whole


def run_of(config, folder, data="d"):
    return Run.of(config, choices={}, data=data, results_dir=folder)


def test_a_run_is_its_config_and_data(tmp_path):
    config = {"seed": 0, "adapter": {"rank": 8}, "paths": {"data_dir": "x"}, "monitor": {"every_n_steps": 5}}
    same = {"adapter": {"rank": 8}, "seed": 0, "paths": {"data_dir": "y"}, "monitor": {"every_n_steps": 6}}
    assert run_of(config, tmp_path).id == run_of(same, tmp_path).id
    others = [
        run_of(config, tmp_path, data="e"),
        run_of(config | {"seed": 1}, tmp_path),
        run_of(config | {"new": 1}, tmp_path),
    ]
    assert len({run_of(config, tmp_path).id, *(other.id for other in others)}) == 4


def test_the_id_depends_on_the_parent_and_not_on_how_start_from_names_it(tmp_path):
    def name(overrides, parent):
        return Run.of(
            {"seed": 0, "start_from": overrides}, choices={}, data="d", results_dir=tmp_path, parent=parent
        ).id

    assert name(["task=mnli"], "p") == name(["task=mnli", "optimizer.lr=1"], "p")
    assert len({name(["task=mnli"], "p"), name(["task=mnli"], "q"), name(None, None)}) == 3


def test_a_half_written_record_is_not_a_record(tmp_path):
    mine = run_of({"seed": 0}, tmp_path)
    mine.folder.mkdir(parents=True)
    mine.record_path.write_text('{"run": "')
    assert mine.finished() is None


def started(config, folder):
    run = run_of(config, folder).start(rerun=False)
    (run.attempt / "adapter.safetensors").write_bytes(b"weights")
    run.checkpoint.write_bytes(b"checkpoint")
    return run


def test_a_run_is_published_with_its_record_and_the_hashes_of_its_files(tmp_path):
    run = started({"seed": 0}, tmp_path)
    assert not run.folder.exists()
    run.end(record(run.id))
    published = run.finished()
    assert sorted(path.name for path in run.folder.iterdir()) == ["adapter.safetensors", "record.json"]
    assert published.files == {"adapter.safetensors": xxh3_128_hexdigest(b"weights")}
    assert damages(published, run.folder) == []
    assert not run.attempt.exists()


def test_changed_and_missing_files_are_named(tmp_path):
    run = started({"seed": 0}, tmp_path)
    (run.attempt / "factors.csv").write_text("x")
    run.end(record(run.id))
    (run.folder / "adapter.safetensors").write_bytes(b"Weights")
    (run.folder / "factors.csv").unlink()
    assert damages(run.finished(), run.folder) == [
        f"{run.folder / 'adapter.safetensors'} is not the file that the record describes",
        f"{run.folder / 'factors.csv'} is missing",
    ]


def test_a_killed_rerun_leaves_the_old_run_as_it_was(tmp_path):
    run = started({"seed": 0}, tmp_path)
    run.end(record(run.id, score=0.5))
    again = run.start(rerun=True)
    (again.attempt / "adapter.safetensors").write_bytes(b"others")
    run.repair()  # as the next process does
    assert run.finished().score == 0.5
    assert damages(run.finished(), run.folder) == []


def test_a_run_that_was_killed_between_its_record_and_the_rename_is_published_at_the_next_start(tmp_path):
    run = started({"seed": 0}, tmp_path)
    replace(record(run.id), attempt=run.number).write(run.attempt / "record.json")
    assert run.finished() is None
    run.repair()
    assert run.finished() is not None
    assert not run.attempt.exists()


def test_the_record_of_another_run_is_refused(tmp_path, caplog):
    run = started({"seed": 0}, tmp_path)
    run.end(record(run.id))
    moved = tmp_path / "runs" / "other"
    run.folder.rename(moved)
    assert finished(moved / "record.json") is None
    assert f"{moved / 'record.json'} is of the run {run.id}" in caplog.text


@pytest.mark.parametrize("number", range(7))
def test_flipped_bits_of_a_checkpoint_are_noticed(tmp_path, number, caplog):
    path = tmp_path / "last.ckpt"
    torch.save({"weights": torch.linspace(0, 1, 4000), "step": 3}, path)
    assert is_whole(path)
    content = bytearray(path.read_bytes())
    content[(number + 1) * 1999] ^= 4
    path.write_bytes(content)
    assert not is_whole(path)
    assert f"{path} is damaged" in caplog.text


def test_a_rerun_that_was_killed_right_after_its_publication_is_not_undone(tmp_path):
    run = started({"seed": 0}, tmp_path)
    run.end(record(run.id, score=0.25))
    old = run.finished()
    again = run.start(rerun=True)
    again.end(record(run.id, score=0.5))
    old.write(again.attempt / "record.json")  # the two folders were exchanged, the old one is still there
    run.repair()
    assert run.finished().score == 0.5
    assert not again.attempt.exists()


def test_an_attempt_goes_on_from_the_files_of_the_interrupted_one_and_has_a_larger_number(tmp_path):
    first = started({"seed": 0}, tmp_path)
    second = first.start(rerun=False)
    assert second.number > first.number
    assert second.checkpoint.read_bytes() == b"checkpoint"
    assert not first.attempt.exists()
    third = second.start(rerun=True)
    assert not third.checkpoint.exists()


def test_a_copy_that_was_killed_is_no_attempt(tmp_path):
    first = started({"seed": 0}, tmp_path)
    begun = first.attempt.with_name(f"{first.number + 1}.copy")
    begun.mkdir()
    (begun / "adapter.safetensors").write_bytes(b"half")
    second = first.start(rerun=False)
    assert not begun.exists()
    assert (second.attempt / "adapter.safetensors").read_bytes() == b"weights"


def test_an_attempt_that_was_overtaken_is_not_published(tmp_path):
    slow = started({"seed": 0}, tmp_path)
    kept = tmp_path / "kept"
    slow.attempt.rename(kept)
    slow.attempt.mkdir(parents=True)
    fast = slow.start(rerun=False)
    fast.end(record(slow.id, score=0.5))
    with pytest.raises(ClaimLostError, match="was removed by a later attempt"):
        slow.end(record(slow.id, score=0.25))
    slow.attempt.parent.mkdir(parents=True)
    kept.rename(slow.attempt)  # as if its folder had not been removed yet
    with pytest.raises(ClaimLostError, match=f"was published by a later attempt, {fast.number}"):
        slow.end(record(slow.id, score=0.25))
    assert fast.finished().score == 0.5
    assert fast.finished().attempt == fast.number
