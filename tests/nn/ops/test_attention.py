import math

import pytest
import torch

from xlora_bench.nn.ops.attention import attention
from xlora_bench.nn.ops.dropout import drop

HIDDEN = torch.finfo(torch.float32).min


def sentences(rows, queries, length, *, heads=3, width=8):
    """States as a model projects them: (rows, n, heads, width) seen as (rows, heads, n, width), and a mask."""
    torch.manual_seed(0)
    shapes = [(rows, queries, heads, width), (rows, length, heads, width), (rows, length, heads, width)]
    states = [torch.randn(shape).requires_grad_() for shape in shapes]
    segments = torch.arange(length) // 7
    same = segments[:queries, None] == segments
    return states, same.expand(rows, 1, queries, length)


def written_out(query, key, value, p, *, mask):
    scores = (query * 0.3) @ key.transpose(-1, -2) + torch.zeros(mask.shape).masked_fill(~mask, HIDDEN)
    return (drop(scores.softmax(-1), p) @ value).transpose(1, 2).contiguous()


def outcome(function, states, p=0.1):
    for each in states:
        each.grad = None
    torch.manual_seed(1)
    result = function(*(each.transpose(1, 2) for each in states), p)
    result.backward(torch.linspace(-1, 1, result.numel()).view(result.shape))
    return [result.detach(), *(each.grad for each in states)]


def assert_equal_up_to_rounding(actual: torch.Tensor, expected: torch.Tensor, *, terms: int) -> None:
    """No entry differs by more than `eps sqrt(terms)` times the largest, for sums of at most `terms` products.

    Matrix products of other shapes and strides may add in another order, as the BLAS and the processor decide. The
    rounding errors of a sum are independent of each other, so they grow as the root of the number of its terms.
    """
    tolerance = torch.finfo(expected.dtype).eps * math.sqrt(terms) * expected.abs().max().item()
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance)


def attended(rows, queries, length, *, boolean):
    """`attention` and the same operations left to autograd: of each, the output and the gradients of q, k and v."""
    states, same = sentences(rows, queries, length)
    mask = same if boolean else torch.zeros(same.shape).masked_fill(~same, HIDDEN)
    result = outcome(lambda q, k, v, p: attention(None, q, k, v, mask, dropout=p, scaling=0.3)[0], states)
    return result, outcome(lambda q, k, v, p: written_out(q, k, v, p, mask=same), states)


@pytest.mark.parametrize("boolean", [False, True])
@pytest.mark.parametrize(("rows", "queries", "length"), [(3, 40, 40), (1, 64, 64), (2, 4, 50), (5, 8, 8)])
def test_one_function_gives_what_autograd_gives(rows, queries, length, boolean):
    for actual, expected in zip(*attended(rows, queries, length, boolean=boolean), strict=True):
        assert_equal_up_to_rounding(actual, expected, terms=length)  # queries, keys and the width are no more


def test_one_mask_for_all_queries_of_a_row():
    states, _ = sentences(3, 8, 8)
    shown = (torch.arange(8) < torch.tensor([8, 5, 2])[:, None])[:, None, None]
    result = outcome(lambda q, k, v, p: attention(None, q, k, v, shown, dropout=p, scaling=0.3)[0], states)
    expected = outcome(lambda q, k, v, p: written_out(q, k, v, p, mask=shown.expand(-1, 1, 8, 8)), states)
    for actual, exact in zip(result, expected, strict=True):
        assert_equal_up_to_rounding(actual, exact, terms=8)


@pytest.mark.parametrize("trained", [(0,), (1,), (2,), (0, 2)])
def test_only_the_gradients_that_are_needed(trained):
    states, same = sentences(2, 40, 40)
    mask = torch.zeros(same.shape).masked_fill(~same, HIDDEN)
    everything = outcome(lambda q, k, v, p: attention(None, q, k, v, mask, dropout=p, scaling=0.3)[0], states)[1:]
    for index, each in enumerate(states):
        each.requires_grad_(index in trained)
    some = outcome(lambda q, k, v, p: attention(None, q, k, v, mask, dropout=p, scaling=0.3)[0], states)[1:]
    for index, (gradient, exact) in enumerate(zip(some, everything, strict=True)):
        assert torch.equal(gradient, exact) if index in trained else gradient is None


def test_sixteen_bits_and_certain_dropout_are_torchs():
    states, same = sentences(2, 40, 40)
    narrow = [each.detach().bfloat16().transpose(1, 2) for each in states]
    assert attention(None, *narrow, same, dropout=0.1)[0].dtype == torch.bfloat16
    assert not attention(None, *(each.transpose(1, 2) for each in states), same, dropout=1.0)[0].any()
