import errno
import logging
import multiprocessing
import os
import re

import numpy as np
import pytest

from xlora_bench.data import tokenize
from xlora_bench.data.sources import Rows, read_rows

pytestmark = pytest.mark.slow

MAX_LENGTH = 6


@pytest.fixture
def rows(make_task, toy_dir):
    return read_rows(make_task(), "train", data_dir=toy_dir)


def make(rows, tokenizer, cache, max_length=MAX_LENGTH):
    return tokenize.tokenized(rows, tokenizer=tokenizer, max_length=max_length, cache_dir=cache)


def cache_files(cache):
    return sorted((cache / "tokens").iterdir())


def forbid_tokenizing(monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError("tokenised again")

    monkeypatch.setattr(tokenize, "_tokenize", fail)


def test_examples_equal_the_tokenizer_row_by_row(rows, tokenizer, tmp_path):
    split = make(rows, tokenizer, tmp_path)
    assert len(split) == len(rows)
    for index, text in enumerate(rows.texts[0]):
        expected = tokenizer(text, truncation=True, max_length=MAX_LENGTH)
        example = split[index]
        assert example["input_ids"].tolist() == expected["input_ids"]
        assert example["token_type_ids"].tolist() == expected["token_type_ids"]
        assert example["input_ids"].dtype == np.int32
        assert (example["label"], example["idx"]) == (rows.labels[index], index)
        assert split.lengths[index] == len(expected["input_ids"]) <= MAX_LENGTH


def test_pairs_carry_their_second_segment(tokenizer, tmp_path):
    labels = np.array([0.5], dtype=np.float32)
    rows = Rows(texts=(["good soup"], ["bad room"]), labels=labels, idx=np.array([9]))
    example = make(rows, tokenizer, tmp_path, 12)[0]
    expected = tokenizer("good soup", "bad room")
    assert example["input_ids"].tolist() == expected["input_ids"]
    assert example["token_type_ids"].tolist() == expected["token_type_ids"]
    assert max(expected["token_type_ids"]) == 1
    assert (example["label"], example["idx"]) == (0.5, 9)


def test_more_rows_than_one_chunk(rows, tokenizer, tmp_path, monkeypatch):
    whole = make(rows, tokenizer, tmp_path / "whole")
    monkeypatch.setattr(tokenize, "CHUNK", 2)
    parts = make(rows, tokenizer, tmp_path / "parts")
    assert [part["input_ids"].tolist() for part in parts] == [part["input_ids"].tolist() for part in whole]


def test_the_second_time_comes_from_the_cache(rows, tokenizer, tmp_path, monkeypatch):
    first = make(rows, tokenizer, tmp_path)
    forbid_tokenizing(monkeypatch)
    second = make(rows, tokenizer, tmp_path)
    assert [row["input_ids"].tolist() for row in second] == [row["input_ids"].tolist() for row in first]


def test_the_key_sees_rows_length_and_tokenizer(make_task, toy_dir, rows, tokenizer, tmp_path):
    make(rows, tokenizer, tmp_path)
    make(rows, tokenizer, tmp_path, MAX_LENGTH + 1)
    make(read_rows(make_task(), "validation", data_dir=toy_dir), tokenizer, tmp_path)
    tokenizer.add_tokens(["soup was"])
    make(rows, tokenizer, tmp_path)
    assert len(cache_files(tmp_path)) == 4


def test_the_tokenizer_hash_ignores_what_a_call_leaves_behind(tokenizer):
    before = tokenize.tokenizer_hash(tokenizer)
    tokenizer(["a soup", "bad"], truncation=True, max_length=3, padding=True)
    assert tokenize.tokenizer_hash(tokenizer) == before


def cut(data):
    return data[: len(data) // 2]


def flip(data):
    return data[:-3] + bytes([data[-3] ^ 1]) + data[-2:]


@pytest.mark.parametrize("damage", [cut, flip, lambda data: b"", lambda data: os.urandom(200)])
def test_a_damaged_file_is_made_anew(rows, tokenizer, tmp_path, damage, caplog):
    expected = [row["input_ids"].tolist() for row in make(rows, tokenizer, tmp_path)]
    (path,) = cache_files(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    with caplog.at_level(logging.WARNING):
        assert [row["input_ids"].tolist() for row in make(rows, tokenizer, tmp_path)] == expected
    assert path.read_bytes() == whole
    assert caplog.text.count(f"the cache file {path} is damaged") == 1


def test_a_writer_killed_in_the_middle_leaves_no_file_under_the_name(rows, tokenizer, tmp_path):
    context = multiprocessing.get_context("spawn")  # a fork of the tokenizer's threads may hang
    process = context.Process(target=_die_before_rename, args=(rows, tokenizer, tmp_path))
    process.start()
    process.join()
    assert process.exitcode == 9
    assert [path.suffix for path in cache_files(tmp_path)] != [".safetensors"]
    assert len(make(rows, tokenizer, tmp_path)) == len(rows)


def _die_before_rename(rows, tokenizer, cache):
    os.replace = lambda *names: os._exit(9)
    make(rows, tokenizer, cache)


def test_a_full_disk_is_no_reason_to_stop_and_leaves_nothing_behind(rows, tokenizer, tmp_path, monkeypatch, caplog):
    def refuse(*names):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    assert len(make(rows, tokenizer, tmp_path)) == len(rows)
    assert re.search(r"cache file \S+/tokens/\S+ cannot be written \(.*No space left on device", caplog.text)
    assert cache_files(tmp_path) == []


def test_processes_at_the_same_time_agree(rows, tokenizer, tmp_path):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=make, args=(rows, tokenizer, tmp_path)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 3
    assert len(cache_files(tmp_path)) == 1


def test_a_cache_folder_that_cannot_be_made_is_named(rows, tokenizer, tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    assert len(make(rows, tokenizer, tmp_path / "file")) == len(rows)
    assert "file/tokens" in caplog.text


def test_max_length_must_fit_the_tokenizer(rows, tokenizer, tmp_path):
    with pytest.raises(ValueError, match=r"task\.max_length` \(=129\) must be at most 128"):
        make(rows, tokenizer, tmp_path, 129)


def test_a_slow_tokenizer_is_refused():
    class Slow:
        is_fast = False

    with pytest.raises(ValueError, match="tokenizer Slow has no fast version"):
        tokenize.tokenizer_hash(Slow())
