"""The LightningDataModule of a task: data loaders and the order of the batches."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from torch.utils.data import BatchSampler, DataLoader, Sampler
from transformers import PreTrainedTokenizerBase

from xlora_bench.data.collators import PaddedCollator
from xlora_bench.data.corpus import Corpus
from xlora_bench.data.task import TextTask
from xlora_bench.data.tokenize import Example, TokenizedSplit
from xlora_bench.runs import seeds
from xlora_bench.system.ranks import ALONE, Ranks

Collator = Callable[[Sequence[Example]], dict[str, Any]]


class EpochSampler(Sampler[int]):
    """A permutation of `rows` indices that depends on (seed, epoch) alone. A resumed run gets the same batches."""

    def __init__(self, rows: int, *, seed: int) -> None:
        self.rows = rows
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch. Lightning calls this at the start of each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.rows

    def __iter__(self) -> Iterator[int]:
        stream = seeds.generator(self.seed, "order", self.epoch)
        return iter(torch.randperm(self.rows, generator=stream).tolist())


class SharedBatches(BatchSampler):
    """The rows of one rank in each batch of `batch_size` rows, of which the last one may be smaller.

    A rank without a row in a batch gets the first row of it, because a rank must take part in every step. That row
    counts nothing: see `rows_in`.
    """

    def __init__(self, sampler: Sampler[int], batch_size: int, *, ranks: Ranks) -> None:
        super().__init__(sampler, batch_size, drop_last=False)
        self.ranks = ranks

    def __iter__(self) -> Iterator[list[int]]:
        for batch in super().__iter__():
            yield list(self.ranks.share(batch)) or batch[:1]

    def rows_in(self, batch_idx: int) -> tuple[int, int]:
        """Return the number of rows of this rank in a batch, and of all ranks."""
        rows = min(self.batch_size, len(self.sampler) - batch_idx * self.batch_size)  # type: ignore[arg-type]
        return len(self.ranks.share(range(rows))), rows


class TextData(lightning.LightningDataModule):
    """The batches of one task for one tokenizer.

    Training uses a new order each epoch and keeps the last, smaller batch. Evaluation has one loader per split, with
    the longest rows first to minimise padding; `idx` identifies the rows. `corpus` holds rows and tokens that were
    read already. On several `ranks`, each rank has its share of every training batch and of the rows of each split.
    """

    def __init__(
        self,
        task: TextTask,
        *,
        tokenizer: PreTrainedTokenizerBase,
        seed: int,
        cache_dir: Path,
        data_dir: Path | None = None,
        corpus: Corpus | None = None,
        train_collator: Collator | None = None,
        eval_collator: Collator | None = None,
        num_workers: int = 0,
        ranks: Ranks = ALONE,
    ) -> None:
        super().__init__()
        self.task = task
        self.tokenizer = tokenizer
        self.seed = seed
        self.corpus = corpus or Corpus(task, tokenizer=tokenizer, cache_dir=cache_dir, data_dir=data_dir)
        self.train_collator = train_collator or PaddedCollator(tokenizer)
        self.eval_collator = eval_collator or PaddedCollator(tokenizer)
        self.num_workers = num_workers
        self.ranks = ranks
        self.splits: dict[str, TokenizedSplit] = {}

    @property
    def fingerprint(self) -> str:
        """Content hash of all rows. Does not need the tokens."""
        return self.corpus.fingerprint

    def setup(self, stage: str | None = None) -> None:
        """Tokenise every split; a second call does nothing."""
        self.splits = self.splits or self.corpus.splits

    def train_dataloader(self) -> DataLoader[Example]:
        """Return the training batches."""
        split = self.splits[self.task.training_split]
        sampler = EpochSampler(len(split), seed=self.seed)
        if self.ranks.world == 1:
            return self._loader(split, sampler, batch_size=self.task.batch_size, collator=self.train_collator)
        shared = SharedBatches(sampler, self.task.batch_size, ranks=self.ranks)
        return self._loader(split, batch_sampler=shared, collator=self.train_collator)

    def val_dataloader(self) -> list[DataLoader[Example]]:
        """Return one loader for each of `task.eval_splits`, in their order."""
        return [self._eval_loader(self.splits[name]) for name in self.task.eval_splits]

    def test_dataloader(self) -> list[DataLoader[Example]]:
        """Return the loaders of `val_dataloader`."""
        return self.val_dataloader()

    def predict_dataloader(self) -> list[DataLoader[Example]]:
        """Return the loaders of `val_dataloader`."""
        return self.val_dataloader()

    @property
    def pins_memory(self) -> bool:
        """Whether batches are made in pinned memory: a copy to a GPU then waits for nothing."""
        return self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"

    def _eval_loader(self, split: TokenizedSplit) -> DataLoader[Example]:
        longest_first: list[int] = np.argsort(-split.lengths, kind="stable").tolist()
        share = list(self.ranks.share(longest_first))
        return self._loader(split, share, batch_size=self.task.eval_batch_size, collator=self.eval_collator)

    def _loader(
        self,
        split: TokenizedSplit,
        sampler: Sampler[int] | list[int] | None = None,
        *,
        collator: Collator,
        **batches: Any,
    ) -> DataLoader[Example]:
        return DataLoader(
            split,
            sampler=sampler,
            **batches,
            collate_fn=collator,
            num_workers=self.num_workers,
            pin_memory=self.pins_memory,
            # A loader draws a base seed each epoch. With its own generator it does not use the global one.
            generator=seeds.generator(self.seed, "order"),
        )
