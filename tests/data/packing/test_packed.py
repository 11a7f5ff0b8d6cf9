from types import SimpleNamespace

import numpy as np
import pytest
import torch

from xlora_bench.data.collators import PaddedCollator
from xlora_bench.data.packing.packed import PackedCollator, cheapest, first_fit_decreasing
from xlora_bench.data.task import ROW_LENGTHS

TOKENIZER = SimpleNamespace(pad_token_id=1, pad_token_type_id=0)


@pytest.mark.parametrize("seed", range(50))
def test_a_packing_puts_every_sentence_in_one_place_of_its_own(seed):
    numbers = np.random.default_rng(seed)
    lengths = numbers.integers(1, numbers.integers(2, 90), numbers.integers(1, 60))
    capacity = max(64, int(lengths.max()))

    packing = first_fit_decreasing(lengths, capacity)

    taken = np.zeros(packing.shape, dtype=int)
    for row, start, length in zip(packing.row, packing.start, lengths, strict=True):
        taken[row, start : start + length] += 1
    assert taken.max() == 1
    assert taken.sum() == lengths.sum()
    assert packing.shape[1] <= capacity
    for row in range(len(taken)):
        here = packing.row == row
        assert packing.index[here].tolist() == np.argsort(np.argsort(packing.start[here])).tolist()
    filled = np.sort(taken.sum(1))
    assert len(filled) == 1 or filled[0] + filled[1] > capacity  # first fit never leaves two rows that fit in one


def test_longer_rows_where_short_ones_would_stay_half_empty():
    forties = (40,) * 20
    assert first_fit_decreasing(np.array(forties), 64).shape == (20, 40)
    assert cheapest(forties, (64, 128)).shape == (20, 40)  # rows are cut to what they hold: nothing is wasted
    mixed = (60, *forties)
    assert first_fit_decreasing(np.array(mixed), 64).shape == (21, 60)
    assert cheapest(mixed, (64, 128)).shape[1] > 64


def test_finer_rows_leave_less_padding():
    numbers = np.random.default_rng(0)
    batches = [tuple(numbers.integers(5, 45, 16).tolist()) for _ in range(50)]
    fine, coarse = (sum(cheapest(batch, rows).cost for batch in batches) for rows in (ROW_LENGTHS, (64, 96, 128)))
    assert fine < 0.95 * coarse
    real = sum(map(sum, batches)) / sum(np.prod(cheapest(batch, ROW_LENGTHS).shape) for batch in batches)
    assert real > 0.9


@pytest.mark.parametrize(
    ("lengths", "shape"), [([5], (1, 5)), ([1], (1, 1)), ([1, 1, 1], (1, 3)), ([100, 20, 64], (2, 100))]
)
def test_small_batches_and_long_sentences_have_no_row_too_many(sentences, lengths, shape):
    batch = PackedCollator(TOKENIZER, row_lengths=(64,))(sentences(lengths))
    assert tuple(batch["input_ids"].shape) == shape


@pytest.mark.parametrize("pairs", [False, True])
def test_each_segment_is_its_example(sentences, pairs):
    examples = sentences([7, 30, 1, 45, 12, 70, 3], pairs=pairs)
    batch = PackedCollator(TOKENIZER, row_lengths=(64,), position_offset=2)(examples)

    for number, example in enumerate(examples, start=1):
        here = batch["segment_ids"] == number
        assert batch["input_ids"][here].tolist() == example["input_ids"].tolist()
        assert batch["position_ids"][here].tolist() == [2 + index for index in range(len(example["input_ids"]))]
        assert batch["input_ids"].flatten()[batch["first"][number - 1]] == example["input_ids"][0]
        assert batch["segment_ids"].flatten()[batch["first"][number - 1]] == number
        row, index = divmod(int(batch["answers"][number - 1]), batch["queries"].shape[1])
        assert row * here.shape[1] + batch["queries"][row, index] == batch["first"][number - 1]
        if pairs:
            assert batch["token_type_ids"][here].tolist() == example["token_type_ids"].tolist()
    assert (batch["input_ids"][batch["segment_ids"] == 0] == TOKENIZER.pad_token_id).all()
    assert ("token_type_ids" in batch) == pairs


def test_targets_are_those_of_the_padded_batch(sentences):
    examples = [*sentences([7, 30, 1]), {"input_ids": np.array([5, 6]), "label": 2, "idx": 7}]
    packed, padded = PackedCollator(TOKENIZER)(examples), PaddedCollator(TOKENIZER)(examples)
    assert torch.equal(packed["labels"], padded["labels"])
    assert torch.equal(packed["idx"], padded["idx"])
    assert packed["tokens"] == padded["tokens"] == 40


def test_what_cannot_be_packed_is_named(sentences):
    with pytest.raises(ValueError, match="`idx` 1001 has no tokens"):
        PackedCollator(TOKENIZER)(sentences([3, 0]))
    with pytest.raises(ValueError, match=r"`row_lengths` \(=\(0,\)\)"):
        PackedCollator(TOKENIZER, row_lengths=(0,))
    with pytest.raises(ValueError, match="no padding token"):
        PackedCollator(SimpleNamespace(pad_token_id=None, pad_token_type_id=0))
