"""Files and folders that replace each other in one step, and checked cache files."""

import os
import time

import pytest
import torch

from xlora_bench.system import io
from xlora_bench.system.checked_file import read_checked, write_checked


def folder_with(path, text):
    path.mkdir(parents=True)
    (path / "a").write_text(text)
    return path


def test_an_error_leaves_the_old_file_and_nothing_else_and_names_the_path(tmp_path):
    path = tmp_path / "a"
    path.write_text("old")

    def fail(temporary):
        temporary.write_text("half")
        raise OSError(28, "disk full")

    with pytest.raises(OSError, match=rf"full.*{path}"), io.replacing(path) as temporary:
        fail(temporary)
    assert [(each, each.read_text()) for each in tmp_path.iterdir()] == [(path, "old")]


def test_the_umask_decides_who_may_read(tmp_path):
    before = os.umask(0o027)
    try:
        io.write_atomically(tmp_path / "a", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


def test_only_old_temporary_files_are_removed(tmp_path):
    names = [".a.123.tmp", ".b.123.tmp", "c.tmp"]
    for name in names:
        (tmp_path / name).touch()
    os.utime(tmp_path / names[0], (time.time() - 4000,) * 2)
    io.remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == names[1:]


@pytest.mark.parametrize("exchange", [True, False])
def test_a_published_folder_replaces_the_old_one(tmp_path, monkeypatch, exchange):
    if not exchange:
        monkeypatch.setattr(io, "exchanged", lambda *folders: False)
    target, old = tmp_path / "runs" / "x", tmp_path / "attempts" / "x.replaced"
    io.publish(folder_with(tmp_path / "attempts" / "x", "one"), target, old=old)
    assert (target / "a").read_text() == "one"
    io.publish(folder_with(tmp_path / "attempts" / "x", "two"), target, old=old)
    assert (target / "a").read_text() == "two"
    assert list((tmp_path / "attempts").iterdir()) == []


def test_a_kill_between_two_renames_is_repaired(tmp_path):
    old, target = folder_with(tmp_path / "x.replaced", "one"), tmp_path / "x"
    io.end_publish(target, old=old)
    assert (target / "a").read_text() == "one"
    folder_with(old, "two")
    io.end_publish(target, old=old)
    assert (target / "a").read_text() == "one"
    assert not old.exists()


@pytest.mark.parametrize("at", range(0, 400, 23))
def test_every_flipped_bit_of_a_cache_file_is_noticed(tmp_path, at, caplog):
    path = tmp_path / "x.safetensors"
    write_checked(path, {"a": torch.arange(24.0), "b": torch.ones(3, dtype=torch.int32)})
    whole = path.read_bytes()
    assert torch.equal(read_checked(path)["a"], torch.arange(24.0))
    at %= len(whole)
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    assert read_checked(path) is None
    assert caplog.text.count(f"{path} is damaged") == 1
    assert not path.exists()
