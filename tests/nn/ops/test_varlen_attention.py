"""Attention in rows of different lengths, against the same sentences one by one."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xlora_bench.data.packing.unpadded import varlen_rows
from xlora_bench.nn.ops.attention import attention
from xlora_bench.nn.ops.dropout import mask_of
from xlora_bench.nn.ops.varlen_attention import VarlenAttention, row_groups_of

ROWS = ((4,), (3, 2), (2, 3), (9,), (9,), (5, 3, 1))
SENTENCES = [length for row in ROWS for length in row]
HEADS, WIDTH, SCALING = 3, 8, 0.3
FIRST = [sum(SENTENCES[:index]) for index in range(len(SENTENCES))]


def states(dtype, *, first=False):
    """Queries, keys and values as a model projects them: (1, heads, n, width) seen in (1, n, heads, width)."""
    torch.manual_seed(0)
    counts = (len(SENTENCES) if first else sum(SENTENCES), sum(SENTENCES), sum(SENTENCES))
    return [torch.randn(1, count, HEADS, WIDTH, dtype=dtype).requires_grad_() for count in counts]


def by_sentence(query, key, value, *, first=False, sentences=SENTENCES):
    """(1, n, heads, width) each: attention of one sentence after the other, by its definition."""
    n_queries = [1] * len(sentences) if first else sentences
    parts = zip(query[0].split(n_queries), key[0].split(sentences), value[0].split(sentences), strict=True)
    outputs = [
        torch.einsum("hqk,khd->qhd", (SCALING * torch.einsum("qhd,khd->hqk", q, k)).softmax(-1), v) for q, k, v in parts
    ]
    return torch.cat(outputs).unsqueeze(0)


def by_row(query, key, value, *, dropout=0.0, rows=ROWS):
    query, key, value = (each.transpose(1, 2) for each in (query, key, value))
    return attention(None, query, key, value, None, dropout=dropout, rows=rows, scaling=SCALING)[0]


def outcome(result, inputs):
    weights = torch.linspace(-1, 1, result.numel(), dtype=result.dtype).view(result.shape)
    return [result.detach(), *torch.autograd.grad((result * weights).sum(), inputs)]


def is_one_function(result):
    return type(result.grad_fn.next_functions[0][0]).__name__ == VarlenAttention.__name__ + "Backward"


@pytest.mark.parametrize("first", [False, True])
def test_without_dropout_it_is_the_attention_of_each_sentence(first):
    inputs = states(torch.double, first=first)
    expected = outcome(by_sentence(*inputs, first=first), inputs)
    result = by_row(*inputs)
    assert is_one_function(result)
    for actual, exact in zip(outcome(result, inputs), expected, strict=True):
        torch.testing.assert_close(actual, exact)
    with torch.no_grad():
        torch.testing.assert_close(by_row(*inputs), expected[0])


def test_rows_of_one_make_are_one_group_and_share_no_mask():
    groups = row_groups_of(ROWS, False, torch.float32)
    assert [(group.rows, group.n_queries, group.length) for group in groups] == [
        (1, 4, 4),
        (2, 5, 5),
        (2, 9, 9),
        (1, 9, 9),
    ]
    assert [group.masks is None for group in groups] == [True, False, True, False]
    assert (groups[1].masks[0, 0, :3, :3] == 0).all()
    assert (groups[1].masks[1, 0, :3, :2] < 0).tolist() == [[False, False], [False, False], [True, True]]
    assert [group.n_queries for group in row_groups_of(ROWS, True, torch.float32)] == [1, 2, 1, 3]


def dropped(query, key, value, *, p, first=False):
    """The same with the mask that `VarlenAttention` draws: one for the scores of all rows, one row after the other."""
    lengths = [sum(row) for row in ROWS]
    n_queries = [len(row) if first else sum(row) for row in ROWS]
    sizes = [HEADS * a * length for a, length in zip(n_queries, lengths, strict=True)]
    torch.manual_seed(1)
    keeps = mask_of(torch.empty(sum(sizes)), p).to(query.dtype).split(sizes)
    outputs = []
    parts = zip(ROWS, query[0].split(n_queries), key[0].split(lengths), value[0].split(lengths), keeps, strict=True)
    for row, q, k, v, keep in parts:
        own = torch.repeat_interleave(torch.tensor(row))
        hidden = (torch.arange(len(row)) if first else own)[:, None] != own
        scores = (SCALING * torch.einsum("qhd,khd->hqk", q, k)).masked_fill(hidden, -torch.inf)
        outputs.append(torch.einsum("hqk,khd->qhd", scores.softmax(-1) * keep.view(scores.shape), v))
    return torch.cat(outputs).unsqueeze(0)


@pytest.mark.parametrize("first", [False, True])
def test_dropped_probabilities_and_their_gradients(first):
    inputs = states(torch.float32, first=first)
    wide = [each.detach().double().requires_grad_() for each in inputs]
    expected = outcome(dropped(*wide, p=0.3, first=first), wide)
    torch.manual_seed(1)
    result = by_row(*inputs, dropout=0.3)
    assert is_one_function(result)
    for actual, exact in zip(outcome(result, inputs), expected, strict=True):
        torch.testing.assert_close(actual.double(), exact, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("trained", [(0,), (1,), (2,), (0, 2)])
def test_only_the_gradients_that_are_needed(trained):
    inputs = states(torch.float32)
    torch.manual_seed(1)
    everything = outcome(by_row(*inputs, dropout=0.1), inputs)[1:]
    for index, each in enumerate(inputs):
        each.requires_grad_(index in trained)
    torch.manual_seed(1)
    some = outcome(by_row(*inputs, dropout=0.1), [inputs[index] for index in trained])[1:]
    for index, gradient in zip(trained, some, strict=True):
        assert torch.equal(gradient, everything[index])


def test_sixteen_bits_are_computed_by_torchs_own_operations():
    inputs = states(torch.bfloat16)
    result = by_row(*inputs, dropout=0.1)
    assert not is_one_function(result)
    assert result.dtype == torch.bfloat16
    exact = by_row(*inputs, dropout=0.0)
    assert not torch.equal(result, exact)
    expected = by_sentence(*(each.double() for each in inputs))
    torch.testing.assert_close(exact.double(), expected, rtol=0.02, atol=0.02)
    assert not by_row(*states(torch.float32), dropout=1.0).any()


def test_masks_made_in_evaluation_serve_training():
    row_groups_of.cache_clear()
    inputs = states(torch.double)
    with torch.inference_mode():
        by_row(*inputs)
    outcome(by_row(*inputs), inputs)


@given(st.lists(st.integers(1, 12), min_size=1, max_size=8), st.integers(1, 16), st.booleans())
def test_any_rows_give_the_attention_of_each_sentence(lengths, capacity, first):
    rows, order = varlen_rows(tuple(lengths), capacity)
    laid = [lengths[index] for index in order]
    counts = (len(laid) if first else sum(laid), sum(laid), sum(laid))
    inputs = [torch.randn(1, count, HEADS, WIDTH, dtype=torch.double).requires_grad_() for count in counts]
    expected = outcome(by_sentence(*inputs, first=first, sentences=laid), inputs)
    for actual, exact in zip(outcome(by_row(*inputs, rows=rows), inputs), expected, strict=True):
        torch.testing.assert_close(actual, exact)
