"""Batches to measure with: from GLUE if there is a folder with it, else random tokens with the lengths of SST-2."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import transformers

from benchmarks.models import FOLDER
from xlora_bench.data.collators import PaddedCollator
from xlora_bench.data.packing import CheapestCollator, UnpaddedCollator
from xlora_bench.data.packing.packed import PackedCollator
from xlora_bench.data.task import ROW_LENGTHS
from xlora_bench.data.tokenize import Example

COLUMNS = {
    "sst2": ["sentence"],
    "cola": ["sentence"],
    "mrpc": ["sentence1", "sentence2"],
    "rte": ["sentence1", "sentence2"],
    "stsb": ["sentence1", "sentence2"],
    "qnli": ["question", "sentence"],
    "qqp": ["question1", "question2"],
}
ROWS = 4096
Collator = Callable[[Sequence[Example]], dict[str, Any]]


def tokenizer() -> transformers.PreTrainedTokenizerBase:
    """Return minilm's tokenizer."""
    return transformers.AutoTokenizer.from_pretrained(FOLDER)


def available(data_dir: Path | None) -> list[str]:
    """Return the tasks in `data_dir`; without one, the name of the random one."""
    if data_dir is None:
        return ["sst2-like"]
    return [task for task in COLUMNS if (data_dir / task / "train.parquet").exists()]


def examples_of(task: str, data_dir: Path | None) -> list[Example]:
    """Return up to 4,096 shuffled training rows; the labels are 0 and 1 for every task."""
    if data_dir is None:
        return drawn()
    rows = pd.read_parquet(data_dir / task / "train.parquet")
    rows = rows.sample(min(ROWS, len(rows)), random_state=0)
    texts = [rows[column].tolist() for column in COLUMNS[task]]
    return made(tokenizer()(*texts, truncation=True, max_length=128)["input_ids"])


def drawn() -> list[Example]:
    """Return 4,096 random sentences as long as those of SST-2: 13.4 tokens, 35 in the longest of a batch."""
    numbers = np.random.default_rng(0)
    lengths = np.clip(numbers.gamma(2.1, 5.2, ROWS) + 2.5, 3, 66).astype(int)
    return made([numbers.integers(1000, 30000, length).tolist() for length in lengths])


def made(ids: Sequence[Sequence[int]]) -> list[Example]:
    """Return examples of token ids."""
    return [
        {
            "input_ids": np.array(row, dtype=np.int32),
            "token_type_ids": np.zeros(len(row), np.int32),
            "label": idx % 2,
            "idx": idx,
        }
        for idx, row in enumerate(ids)
    ]


def in_batches(examples: Sequence[Example], *, size: int, count: int) -> list[Sequence[Example]]:
    """Return the first `count` whole batches."""
    count = min(count, len(examples) // size)
    return [examples[size * index : size * (index + 1)] for index in range(count)]


def packed(row_lengths: Sequence[int] = ROW_LENGTHS) -> Collator:
    """Return the packed layout: rows of one length."""
    return PackedCollator(tokenizer(), row_lengths=row_lengths)


def unpadded() -> Collator:
    """Return the layout of runs on a CPU: unpadded where that is estimated to be cheaper, else packed."""
    return CheapestCollator(UnpaddedCollator(tokenizer()), PackedCollator(tokenizer()))


def padded() -> Collator:
    """Return the layout of transformers' Trainer: padded to the longest of the batch."""
    return PaddedCollator(tokenizer())


def padded_to(length: int) -> Collator:
    """Return the layout of scripts that pad every sentence to one length."""
    longest = padded()

    def collate(examples: Sequence[Example]) -> dict[str, Any]:
        batch = longest(examples)
        missing = length - batch["input_ids"].shape[1]
        for name in ("input_ids", "attention_mask", "token_type_ids"):
            batch[name] = torch.nn.functional.pad(batch[name], (0, missing))  # BERT's padding token is 0
        return batch

    return collate
