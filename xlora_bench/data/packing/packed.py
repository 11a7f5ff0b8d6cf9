"""Sentences of one batch packed into few rows: what the collator's worker does, in numpy."""

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

# Tokens in a row at which attention costs what the linear layers cost; measured at width 384.
ATTENTION = 256

Batch = dict[str, Any]
IntArray = NDArray[np.int64]
Rows = tuple[tuple[int, ...], ...]
"""The lengths of the sentences of each row, in the order of the tokens; rows as long and of as many stand together."""


@dataclass(frozen=True, kw_only=True)
class Packing:
    """The `row` of each sentence, its `start` and its `index` among the sentences there, and the `shape` (rows, L)."""

    row: IntArray
    start: IntArray
    index: IntArray
    shape: tuple[int, int]

    @property
    def cost(self) -> int:
        """What the encoder pays for it: linear layers per token, attention per pair of tokens of a row."""
        rows, length = self.shape
        return rows * length * (ATTENTION + length)


def first_fit_decreasing(lengths: IntArray, capacity: int) -> Packing:
    """Put the longest sentence first, each into the first row with room; one above `capacity` has a row of its own."""
    row, start, within = np.zeros_like(lengths), np.zeros_like(lengths), np.zeros_like(lengths)
    filled: list[int] = []
    held: list[int] = []
    for sentence in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[sentence])
        index = next((index for index, used in enumerate(filled) if used + length <= capacity), len(filled))
        if index == len(filled):
            filled.append(0)
            held.append(0)
        row[sentence], start[sentence], within[sentence] = index, filled[index], held[index]
        filled[index] += length
        held[index] += 1
    return Packing(row=row, start=start, index=within, shape=(len(filled), max(filled)))


def lengths_of(examples: Sequence[Example]) -> IntArray:
    """Return the tokens of each example. Raises ValueError for one without: it has no first one."""
    lengths = np.array([len(example["input_ids"]) for example in examples])  # type: ignore[arg-type]
    if lengths.min() == 0:
        idx = examples[int(lengths.argmin())]["idx"]
        raise ValueError(f"the example with `idx` {idx} has no tokens; it needs one to be classified by")
    return lengths


@lru_cache(maxsize=4096)  # runs of one seed train on the same batches, and every epoch is evaluated on the same ones
def cheapest(lengths: tuple[int, ...], capacities: tuple[int, ...]) -> Packing:
    """Return the packing of least cost; a capacity that is too small for the longest sentence grows to it."""
    sizes = sorted({max(capacity, *lengths) for capacity in capacities})
    return min((first_fit_decreasing(np.array(lengths), size) for size in sizes), key=lambda packing: packing.cost)


class PackedCollator:
    """Packs a list of n examples into rows of one of `row_lengths` tokens, or of the longest example's.

    Gives `input_ids`, (`token_type_ids`,) `position_ids`, which start at `position_offset` in every sentence,
    and `segment_ids`, 1 to n in the order of the examples and 0 for padding, each (rows, L) long; `first`
    (n,) long, the index of each first token in the flattened rows; `queries` (rows, S), the columns of up to S first
    tokens of each row (rows with fewer repeat column 0), and `answers` (n,), the index of each sentence in the
    flattened `queries`; `labels`, `idx` and `tokens` as PaddedCollator does. Only the layout is new: the examples and
    their order are those of the padded batch.

    Raises:
        ValueError: `row_lengths` is empty or not positive, or the tokenizer has no padding token.
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
        """Return what the encoder pays for sentences of `lengths`."""
        return cheapest(lengths, self.row_lengths).cost

    def __call__(self, examples: Sequence[Example]) -> Batch:
        """Return the packed batch. Raises ValueError for an example without tokens: it has no first one."""
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
