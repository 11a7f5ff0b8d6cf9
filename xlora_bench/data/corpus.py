"""Rows and tokens of a task, shared by all runs of a process."""

import dataclasses
from functools import cached_property
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from xlora_bench.data.sources import Rows, fingerprint, read_task
from xlora_bench.data.task import TextTask
from xlora_bench.data.tokenize import TokenizedSplit, tokenized, tokenizer_hash
from xlora_bench.system.lru_cache import LRUCache, file_fingerprint


class Corpus:
    """Rows and tokens of a task's splits, read and tokenised on first access."""

    def __init__(
        self, task: TextTask, *, tokenizer: PreTrainedTokenizerBase, cache_dir: Path, data_dir: Path | None
    ) -> None:
        self.task = task
        self.tokenizer = tokenizer
        self.cache_dir = cache_dir
        self.data_dir = data_dir

    @cached_property
    def rows(self) -> dict[str, Rows]:
        """The checked rows of every split."""
        return read_task(self.task, data_dir=self.data_dir)

    @cached_property
    def fingerprint(self) -> str:
        """Content hash of all rows. Does not need the tokens."""
        return fingerprint(self.rows)

    @cached_property
    def splits(self) -> dict[str, TokenizedSplit]:
        """The tokens of every split. The texts are then deleted, since they are not needed again."""
        length, folder = self.task.max_length, self.cache_dir
        splits = {
            split: tokenized(rows, tokenizer=self.tokenizer, max_length=length, cache_dir=folder)
            for split, rows in self.rows.items()
        }
        assert self.fingerprint  # computed before the texts are deleted
        del self.rows
        return splits


def cached_corpus(
    task: TextTask,
    cache: LRUCache[Corpus],
    *,
    tokenizer: PreTrainedTokenizerBase,
    cache_dir: Path,
    data_dir: Path | None,
) -> Corpus:
    """Return the corpus of `task` from `cache`, or a new one if there is none or the data files have changed."""
    content = dataclasses.replace(task, batch_size=1, eval_batch_size=1, layout="auto", row_lengths=(1,))
    files = file_fingerprint(data_dir.expanduser() / task.name) if data_dir else ()
    key = (content, tokenizer_hash(tokenizer), cache_dir, data_dir, files)
    return cache.get(key, lambda: Corpus(content, tokenizer=tokenizer, cache_dir=cache_dir, data_dir=data_dir))
