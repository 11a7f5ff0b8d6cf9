"""A corpus is read once in a process, for all runs that need the same rows and tokens."""

import dataclasses

from tests.data.conftest import SENTENCES
from xlora_bench.data import corpus as module
from xlora_bench.data.corpus import cached_corpus
from xlora_bench.data.datamodule import TextData
from xlora_bench.system.lru_cache import LRUCache


def test_runs_share_what_they_read_and_the_texts_go(make_task, tokenizer, toy_dir, tmp_path, monkeypatch):
    read, calls = module.read_task, []
    monkeypatch.setattr(module, "read_task", lambda *args, **options: calls.append(args) or read(*args, **options))
    options = {"tokenizer": tokenizer, "data_dir": toy_dir, "cache_dir": tmp_path}
    tasks = (make_task(), make_task(batch_size=2, eval_batch_size=5, layout="padded"))
    cache = LRUCache(8)
    data = [
        TextData(task, seed=seed, **options, corpus=cached_corpus(task, cache, **options))
        for task in tasks
        for seed in (0, 1)
    ]
    for each in data:
        each.setup()
    assert len(calls) == 1
    assert len({each.fingerprint for each in data}) == 1
    assert all(each.splits is data[0].splits for each in data)
    assert "rows" not in vars(data[0].corpus)
    assert [each.train_dataloader().batch_size for each in data] == [3, 3, 2, 2]


def test_other_rows_lengths_and_edited_files_are_another_corpus(make_task, tokenizer, write_splits, frame, tmp_path):
    folder = write_splits("toy", train=frame, validation=frame)
    options = {"tokenizer": tokenizer, "data_dir": folder, "cache_dir": tmp_path}
    task, cache = make_task(), LRUCache(8)
    first = cached_corpus(task, cache, **options)
    assert cached_corpus(task, cache, **options) is first
    for change in ({"max_train_rows": 2}, {"max_length": 4}, {"holdout": 2}):
        assert cached_corpus(dataclasses.replace(task, **change), cache, **options) is not first
    before = first.fingerprint
    write_splits("toy", train=frame.assign(sentence=SENTENCES[::-1]), validation=frame)
    assert cached_corpus(task, cache, **options).fingerprint != before
