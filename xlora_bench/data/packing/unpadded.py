"""Sentences of one batch one after the other, without any padding, where that is cheaper than rows."""

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
"""What attention pays for a row of its own, in pairs of tokens (see `packed.ATTENTION`): the calls that it takes."""


@lru_cache(maxsize=4096)  # runs of one seed train on the same batches, and every epoch is evaluated on the same ones
def varlen_rows(lengths: tuple[int, ...], capacity: int) -> tuple[Rows, IntArray]:
    """Return rows of whole sentences, and the sentences in the order in which the rows hold them.

    A row holds up to `capacity` tokens, or one longer sentence. Rows as long and of as many stand together.
    """
    packing = first_fit_decreasing(np.array(lengths), capacity)
    held: list[list[int]] = [[] for _ in range(packing.shape[0])]
    for sentence in np.lexsort((packing.index, packing.row)).tolist():
        held[packing.row[sentence]].append(sentence)
    held.sort(key=lambda row: (sum(lengths[sentence] for sentence in row), len(row)))
    return tuple(tuple(lengths[sentence] for sentence in row) for row in held), np.concatenate(held)


class UnpaddedCollator:
    """Lays a list of n examples out as one row of T tokens, which is all that they have.

    Gives `input_ids`, (`token_type_ids`,) and `position_ids`, which start at `position_offset` in every sentence, each
    (1, T) long; `rows`, the `varlen_rows` of up to `row_length` tokens in which attention is computed; `first` (n,)
    long, the index of each example's first token; `queries` (1, n), the same indices from left to right, and `answers`
    (n,), the index of each example among them; `labels`, `idx` and `tokens` as PaddedCollator does.

    Raises:
        ValueError: `row_length` is not positive.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, row_length: int = 32, position_offset: int = 0) -> None:
        if row_length < 1:
            raise ValueError(f"`row_length` (={row_length}) must be a positive number")
        self.row_length = row_length
        self.position_offset = position_offset

    def cost(self, lengths: tuple[int, ...]) -> int:
        """Return what the encoder pays for sentences of `lengths`: linear layers per token, attention per row."""
        rows, _ = varlen_rows(lengths, self.row_length)
        return ATTENTION * sum(lengths) + sum(sum(row) ** 2 + ROW for row in rows)

    def __call__(self, examples: Sequence[Example]) -> Batch:
        """Return the unpadded batch. Raises ValueError for an example without tokens: it has no first one."""
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
    """Lays each batch out unpadded or in rows, whichever costs the encoder less: short sentences share rows."""

    def __init__(self, unpadded: UnpaddedCollator, rows: PackedCollator) -> None:
        self.unpadded = unpadded
        self.rows = rows

    def __call__(self, examples: Sequence[Example]) -> Batch:
        """Return the batch of the cheaper layout. Raises ValueError for an example without tokens."""
        lengths = tuple(lengths_of(examples).tolist())
        return self.unpadded(examples) if self.unpadded.cost(lengths) < self.rows.cost(lengths) else self.rows(examples)
