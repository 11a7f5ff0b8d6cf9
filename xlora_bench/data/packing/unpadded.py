"""Unpadded batches: the sentences of a batch follow each other without padding, if that is cheaper than packing."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from xlora_bench.data.collators import targets
from xlora_bench.data.packing.packed import (
    ATTENTION,
    Batch,
    IntArray,
    PackedCollator,
    Rows,
    first_fit_decreasing,
    lengths_of,
)
from xlora_bench.data.tokenize import Example

NAMES = ("input_ids", "token_type_ids")
ROW = 800
"""Fixed cost of attention per row, in token pairs (see `Packing.cost`): the overhead of its calls."""


@lru_cache(maxsize=4096)  # runs with one seed share the training batches, all epochs share the evaluation batches
def varlen_rows(lengths: tuple[int, ...], capacity: int) -> tuple[Rows, IntArray]:
    """Return rows of whole sentences for varlen attention, and the indices of the sentences in row order.

    A row has up to `capacity` tokens, or one longer sentence. Rows with equal length and sentence count are adjacent.
    """
    packing = first_fit_decreasing(np.array(lengths), capacity)
    held: list[list[int]] = [[] for _ in range(packing.shape[0])]
    for sentence in np.lexsort((packing.index, packing.row)).tolist():
        held[packing.row[sentence]].append(sentence)
    held.sort(key=lambda row: (sum(lengths[sentence] for sentence in row), len(row)))
    return tuple(tuple(lengths[sentence] for sentence in row) for row in held), np.concatenate(held)


class UnpaddedCollator:
    """Concatenates n examples to one row of T tokens without padding.

    Returns, each (1, T) long: `input_ids`, (`token_type_ids`,) and `position_ids`, which start at `position_offset` in
    every sentence. `rows` are the `varlen_rows` of up to `row_length` tokens in which attention is computed. `first`
    (n,) is the index of each example's first token. `queries` (1, n) are the same indices in ascending order, and
    `answers` (n,) is the index of each example in `queries`. `labels`, `idx`, `tokens` are those of `PaddedCollator`.

    Raises:
        ValueError: if `row_length` is not positive.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, row_length: int = 32, position_offset: int = 0) -> None:
        if row_length < 1:
            raise ValueError(f"`row_length` (={row_length}) must be a positive number")
        self.row_length = row_length
        self.position_offset = position_offset

    def cost(self, lengths: tuple[int, ...]) -> int:
        """Return the cost of the encoder for sentences of `lengths`, in token pairs as `Packing.cost`."""
        rows, _ = varlen_rows(lengths, self.row_length)
        return ATTENTION * sum(lengths) + sum(sum(row) ** 2 + ROW for row in rows)

    def __call__(self, examples: Sequence[Example]) -> Batch:
        """Return the unpadded batch. Raises ValueError for an example without tokens."""
        rows, order = varlen_rows(tuple(lengths_of(examples).tolist()), self.row_length)
        laid = [examples[index] for index in order]
        lengths = np.array([length for row in rows for length in row])
        starts = np.cumsum(lengths) - lengths
        batch: Batch = {
            name: torch.from_numpy(np.concatenate([example[name] for example in laid]).astype(np.int64))[None]
            for name in NAMES
            if name in examples[0]
        }
        positions = np.arange(lengths.sum()) - np.repeat(starts, lengths) + self.position_offset
        answers = np.argsort(order)
        batch["position_ids"] = torch.from_numpy(positions)[None]
        batch["rows"] = rows
        batch["first"] = torch.from_numpy(starts[answers])
        batch["queries"] = torch.from_numpy(starts)[None]
        batch["answers"] = torch.from_numpy(answers)
        return batch | targets(examples) | {"tokens": int(lengths.sum())}


class CheapestCollator:
    """Lays out each batch unpadded or packed, whichever costs the encoder less."""

    def __init__(self, unpadded: UnpaddedCollator, rows: PackedCollator) -> None:
        self.unpadded = unpadded
        self.rows = rows

    def __call__(self, examples: Sequence[Example]) -> Batch:
        """Return the batch in the cheaper layout. Raises ValueError for an example without tokens."""
        lengths = tuple(lengths_of(examples).tolist())
        return self.unpadded(examples) if self.unpadded.cost(lengths) < self.rows.cost(lengths) else self.rows(examples)
