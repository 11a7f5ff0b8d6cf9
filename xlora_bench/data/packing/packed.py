"""Packed batches: the sentences of a batch share rows. Computed in numpy."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from xlora_bench.data.collators import targets
from xlora_bench.data.task import ROW_LENGTHS
from xlora_bench.data.tokenize import Example

# Row length in tokens at which attention costs as much as the linear layers; measured at hidden size 384.
ATTENTION = 256

Batch = dict[str, Any]
IntArray = NDArray[np.int64]
Rows = tuple[tuple[int, ...], ...]
"""Sentence lengths of each row, in token order. Rows with equal length and equal sentence count are adjacent."""


@dataclass(frozen=True, kw_only=True)
class Packing:
    """`row` of each sentence, `start` column and `index` in that row; `shape` (rows, L) of the batch."""

    row: IntArray
    start: IntArray
    index: IntArray
    shape: tuple[int, int]

    @property
    def cost(self) -> int:
        """Cost of the encoder in token pairs: `ATTENTION` per token for linear layers, plus attention in each row."""
        rows, length = self.shape
        return rows * length * (ATTENTION + length)


def first_fit_decreasing(lengths: IntArray, capacity: int) -> Packing:
    """Pack sentences by decreasing length into the first row with room. Those above `capacity` get their own row."""
    row, start, within = np.zeros_like(lengths), np.zeros_like(lengths), np.zeros_like(lengths)
    filled: list[int] = []
    held: list[int] = []
    for sentence in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[sentence])
        chosen = next((chosen for chosen, used in enumerate(filled) if used + length <= capacity), len(filled))
        if chosen == len(filled):
            filled.append(0)
            held.append(0)
        row[sentence], start[sentence], within[sentence] = chosen, filled[chosen], held[chosen]
        filled[chosen] += length
        held[chosen] += 1
    return Packing(row=row, start=start, index=within, shape=(len(filled), max(filled)))


def lengths_of(examples: Sequence[Example]) -> IntArray:
    """Return the number of tokens of each example. Raises ValueError if it is 0: the first token is classified."""
    lengths = np.array([len(example["input_ids"]) for example in examples])  # type: ignore[arg-type]
    if lengths.min() == 0:
        idx = examples[int(lengths.argmin())]["idx"]
        raise ValueError(f"the example with `idx` {idx} has no tokens; it needs one to be classified by")
    return lengths


@lru_cache(maxsize=4096)  # runs with one seed share the training batches, all epochs share the evaluation batches
def cheapest(lengths: tuple[int, ...], capacities: tuple[int, ...]) -> Packing:
    """Return the packing with the least cost. Capacities below the longest sentence are raised to its length."""
    sizes = sorted({max(capacity, *lengths) for capacity in capacities})
    return min((first_fit_decreasing(np.array(lengths), size) for size in sizes), key=lambda packing: packing.cost)


class PackedCollator:
    """Packs n examples into rows. The row capacity is the cheapest of `row_lengths`, but at least the longest example.

    Returns, each (rows, L) long: `input_ids`, (`token_type_ids`,) `position_ids`, which start at `position_offset` in
    every sentence, and `segment_ids`, which are 1 to n in the order of the examples and 0 for padding. `first` (n,) is
    the index of each first token in the flattened rows. `queries` (rows, S) are the columns of up to S first tokens
    per row; rows with fewer are filled with column 0. `answers` (n,) is the index of each sentence in the flattened
    `queries`. `labels`, `idx` and `tokens` are those of `PaddedCollator`, in the same order.

    Raises:
        ValueError: if `row_lengths` is empty or not positive, or the tokenizer has no padding token.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        row_lengths: Sequence[int] = ROW_LENGTHS,
        position_offset: int = 0,
    ) -> None:
        if not row_lengths or min(row_lengths) < 1:
            raise ValueError(f"`row_lengths` (={tuple(row_lengths)}) must be positive numbers, at least one")
        if tokenizer.pad_token_id is None:
            name = type(tokenizer).__name__
            raise ValueError(f"tokenizer {name} has no padding token: choose a model that has one")
        self.padding = {"input_ids": tokenizer.pad_token_id, "token_type_ids": tokenizer.pad_token_type_id}
        self.row_lengths = tuple(row_lengths)
        self.position_offset = position_offset

    def cost(self, lengths: tuple[int, ...]) -> int:
        """Return the cost of the encoder for sentences of `lengths`, as `Packing.cost`."""
        return cheapest(lengths, self.row_lengths).cost

    def __call__(self, examples: Sequence[Example]) -> Batch:
        """Return the packed batch. Raises ValueError for an example without tokens."""
        lengths = lengths_of(examples)
        packing = cheapest(tuple(lengths.tolist()), self.row_lengths)
        first = packing.row * packing.shape[1] + packing.start
        within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        slots = np.repeat(first, lengths) + within

        def laid_out(values: NDArray[Any], padding: int) -> torch.Tensor:
            table = np.full(packing.shape, padding, dtype=np.int64)
            table.reshape(-1)[slots] = values
            return torch.from_numpy(table)

        batch: Batch = {
            name: laid_out(np.concatenate([example[name] for example in examples]), padding)
            for name, padding in self.padding.items()
            if name in examples[0]
        }
        batch["position_ids"] = laid_out(within + self.position_offset, 0)
        batch["segment_ids"] = laid_out(np.repeat(np.arange(1, len(examples) + 1), lengths), 0)
        batch["first"] = torch.from_numpy(first)
        queries = np.zeros((packing.shape[0], packing.index.max() + 1), dtype=np.int64)
        queries[packing.row, packing.index] = packing.start
        batch["queries"] = torch.from_numpy(queries)
        batch["answers"] = torch.from_numpy(packing.row * queries.shape[1] + packing.index)
        return batch | targets(examples) | {"tokens": int(lengths.sum())}
