import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.data.packing.test_packed import TOKENIZER
from xlora_bench.data.collators import PaddedCollator
from xlora_bench.data.packing import CheapestCollator, PackedCollator, UnpaddedCollator
from xlora_bench.data.packing.packed import ATTENTION, cheapest
from xlora_bench.data.packing.unpadded import varlen_rows


def test_rows_hold_every_sentence_once_and_no_more_tokens_than_they_may():
    lengths = tuple(np.random.default_rng(0).integers(1, 50, 100).tolist())
    rows, order = varlen_rows(lengths, 32)
    assert sorted(order.tolist()) == list(range(100))
    assert [length for row in rows for length in row] == [lengths[sentence] for sentence in order]
    assert all(sum(row) <= 32 or len(row) == 1 for row in rows)
    makes = [(sum(row), len(row)) for row in rows]
    assert makes == sorted(makes)  # those of one make are one call
    assert len(rows) < 0.8 * 100


def test_nothing_but_the_tokens_is_laid_out(sentences):
    lengths = [5, 40, 1, 20, 9]
    examples = sentences(lengths, pairs=True)
    batch = UnpaddedCollator(TOKENIZER, row_length=16, position_offset=2)(examples)
    assert batch["input_ids"].shape == batch["position_ids"].shape == batch["token_type_ids"].shape == (1, 75)
    assert batch["tokens"] == 75
    for number, (example, start) in enumerate(zip(examples, batch["first"].tolist(), strict=True)):
        here = slice(start, start + lengths[number])
        assert batch["input_ids"][0, here].tolist() == example["input_ids"].tolist()
        assert batch["token_type_ids"][0, here].tolist() == example["token_type_ids"].tolist()
        assert batch["position_ids"][0, here].tolist() == list(range(2, 2 + lengths[number]))
    assert batch["queries"][0].tolist() == sorted(batch["first"].tolist())
    assert torch.equal(batch["queries"][0][batch["answers"]], batch["first"])
    starts = np.cumsum([0, *(length for row in batch["rows"] for length in row)])[:-1]
    assert starts.tolist() == batch["queries"][0].tolist()


def test_labels_and_indices_are_those_of_the_padded_batch(sentences):
    examples = sentences([5, 40, 1, 20, 9])
    unpadded, padded = UnpaddedCollator(TOKENIZER)(examples), PaddedCollator(TOKENIZER)(examples)
    assert torch.equal(unpadded["labels"], padded["labels"])
    assert torch.equal(unpadded["idx"], padded["idx"])


def test_the_cheaper_layout_is_taken(sentences):
    unpadded, rows = UnpaddedCollator(TOKENIZER), PackedCollator(TOKENIZER)
    collate = CheapestCollator(unpadded, rows)
    fitting, uneven = (32,) * 8, (50, 47, 41, 38, 36, 35, 33, 33)
    assert rows.cost(fitting) < unpadded.cost(fitting)  # no padding in rows, and one call for all of them
    assert unpadded.cost(uneven) < rows.cost(uneven)
    assert unpadded.cost((30, 2, 40)) == ATTENTION * 72 + 32**2 + 40**2 + 2 * 800
    assert "segment_ids" in collate(sentences(fitting))
    assert "rows" in collate(sentences(uneven))


def test_what_cannot_be_laid_out(sentences):
    for collate in (
        UnpaddedCollator(TOKENIZER),
        CheapestCollator(UnpaddedCollator(TOKENIZER), PackedCollator(TOKENIZER)),
    ):
        with pytest.raises(ValueError, match="has no tokens"):
            collate(sentences([3, 0]))
    with pytest.raises(ValueError, match=r"`row_length` \(=0\)"):
        UnpaddedCollator(TOKENIZER, row_length=0)


LENGTHS = st.lists(st.integers(1, 90), min_size=1, max_size=40)


@given(LENGTHS, st.integers(1, 64))
def test_every_list_of_lengths_is_laid_out_once_in_rows_that_hold_it(lengths, capacity):
    rows, order = varlen_rows(tuple(lengths), capacity)
    assert sorted(order.tolist()) == list(range(len(lengths)))
    assert [length for row in rows for length in row] == [lengths[index] for index in order]
    assert all(len(row) == 1 or sum(row) <= capacity for row in rows)
    kinds = [(sum(row), len(row)) for row in rows]
    assert kinds == sorted(kinds)  # rows as long and of as many sentences stand together


@given(LENGTHS, st.lists(st.integers(1, 128), min_size=1, max_size=3))
def test_no_two_sentences_of_a_packing_share_a_token(lengths, capacities):
    packing = cheapest(tuple(lengths), tuple(capacities))
    rows, width = packing.shape
    taken = np.zeros(packing.shape, dtype=int)
    for row, start, length in zip(packing.row, packing.start, lengths, strict=True):
        assert start + length <= width
        taken[row, start : start + length] += 1
    assert taken.max() == 1
    assert taken.any(axis=1).all()  # no row is empty
    for row in range(rows):
        inside = packing.row == row
        assert sorted(packing.index[inside]) == list(range(inside.sum()))
