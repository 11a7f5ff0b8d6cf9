"""Varlen attention: attention within rows of different lengths, stored one after the other without padding."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from xlora_bench.data.packing.packed import Rows
from xlora_bench.nn.ops.dropout import draws_bits, drop, mask_of


class RowGroup(NamedTuple):
    """`rows` rows of equal length, each with `n_queries` queries and `length` keys.

    `masks (rows, 1, n_queries, length)` are added to the scores and hide the other sentences of a row. None: each row
    has one sentence.
    """

    rows: int
    n_queries: int
    length: int
    masks: Tensor | None


def grouped_attention(
    query: Tensor, key: Tensor, value: Tensor, *, groups: Sequence[RowGroup], dropout: float, scaling: float
) -> Tensor:
    """Return `softmax(s q k^T + mask) v` within each row of `groups`; `drop` drops probabilities.

    `q (S, heads, d)`, `k, v (T, heads, d)`: the queries and keys of all rows, one row after the other. The result is
    `(S, heads, d)`.
    """
    trains = torch.is_grad_enabled() and any(states.requires_grad for states in (query, key, value))
    exact = query.dtype in (torch.float32, torch.float64)
    if trains and exact and (not dropout or draws_bits(query, dropout)):
        return VarlenAttention.apply(query, key, value, groups, dropout, scaling)
    n_queries = [group.rows * group.n_queries for group in groups]
    lengths = [group.rows * group.length for group in groups]
    states = zip(groups, query.split(n_queries), key.split(lengths), value.split(lengths), strict=True)
    return torch.cat([_attention(group, *each, dropout=dropout, scaling=scaling) for group, *each in states])


def _attention(group: RowGroup, query: Tensor, key: Tensor, value: Tensor, *, dropout: float, scaling: float) -> Tensor:
    """Return the attention output of one group, `(rows * n_queries, heads, d)`."""
    query, key, value = (states.unflatten(0, (group.rows, -1)).transpose(1, 2) for states in (query, key, value))
    if not dropout:
        output = scaled_dot_product_attention(query, key, value, attn_mask=group.masks, scale=scaling)
    else:
        scores = (query * scaling) @ key.transpose(-1, -2)
        weights = (scores if group.masks is None else scores + group.masks).softmax(-1)
        output = drop(weights, dropout) @ value
    return output.transpose(1, 2).flatten(0, 1)


class VarlenAttention(torch.autograd.Function):
    """`O = (P * M) V` with `P = softmax(s Q K^T + mask)` in each row, for `Q (S, heads, d)` and `K, V (T, heads, d)`.

    M is the mask of `drop`, 1 without dropout. O is `(S, heads, d)`. With the gradient G of O: `dV = (P * M)^T G`,
    `dP = (G V^T) * M`, `dZ = P * (dP - rowsum(dP * P))`, `dQ = s dZ K`, `dK = s dZ^T Q`. The scores of all rows share
    one buffer, so dropout is one elementwise operation for all rows.
    """

    @staticmethod
    def forward(  # noqa: PLR0917 - autograd functions take no keywords
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, groups: Sequence[RowGroup], p: float, scaling: float
    ) -> Tensor:
        """Return O, `(S, heads, d)`."""
        n_queries = [group.n_queries for group in groups for _ in range(group.rows)]
        lengths = [group.length for group in groups for _ in range(group.rows)]
        masks = [
            mask for group in groups for mask in (group.rows * [None] if group.masks is None else group.masks.unbind())
        ]
        query = query * scaling
        probabilities = query.new_empty(query.shape[1] * sum(map(int.__mul__, n_queries, lengths)))
        queries, keys = _by_row(query, n_queries), _by_row(key, lengths)
        for scores, q, k, mask in zip(_scores(probabilities, n_queries, lengths), queries, keys, masks, strict=True):
            if mask is None:
                torch.bmm(q, k.transpose(1, 2), out=scores)
            else:
                torch.baddbmm(mask, q, k.transpose(1, 2), out=scores)
            torch.softmax(scores, -1, out=scores)
        keep = mask_of(probabilities, p) if p else None
        kept = probabilities if keep is None else probabilities * keep
        ctx.n_queries, ctx.lengths, ctx.scaling = n_queries, lengths, scaling
        ctx.save_for_backward(query, key, value, probabilities, keep, kept)
        return _products(_scores(kept, n_queries, lengths), value, lengths, torch.empty_like(query))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of Q, K and V that are needed."""
        query, key, value, probabilities, keep, kept = ctx.saved_tensors
        needs_query, needs_key, needs_value, *_ = ctx.needs_input_grad
        n_queries, lengths = ctx.n_queries, ctx.lengths
        d_query = d_key = d_value = None
        if needs_value:
            weights = _transposed(_scores(kept, n_queries, lengths))
            d_value = _products(weights, gradient, n_queries, torch.empty_like(value))
        if needs_query or needs_key:
            d_buffer = torch.empty_like(probabilities)
            d_scores = _scores(d_buffer, n_queries, lengths)
            for d_z, g, v in zip(d_scores, _by_row(gradient, n_queries), _by_row(value, lengths), strict=True):
                torch.bmm(g, v.transpose(1, 2), out=d_z)
            if keep is not None:
                d_buffer.mul_(keep)
            for d_z, p in zip(d_scores, _scores(probabilities, n_queries, lengths), strict=True):
                torch._softmax_backward_data(d_z, p, -1, d_z.dtype, grad_input=d_z)
            if needs_query:
                d_query = _products(d_scores, key, lengths, torch.empty_like(query)).mul_(ctx.scaling)
            if needs_key:
                d_key = _products(_transposed(d_scores), query, n_queries, torch.empty_like(key))
        return d_query, d_key, d_value, None, None, None


def _by_row(states: Tensor, sizes: list[int]) -> tuple[Tensor, ...]:
    """Split `states (n, heads, d)` by row into views `(heads, size, d)`."""
    return states.transpose(0, 1).split(sizes, 1)


def _scores(buffer: Tensor, n_queries: list[int], lengths: list[int]) -> list[Tensor]:
    """Split the flat `buffer` of all scores by row into views `(heads, n_queries, length)`."""
    sizes = list(map(int.__mul__, n_queries, lengths))
    heads = buffer.numel() // sum(sizes)
    parts = buffer.split([heads * size for size in sizes])
    return [part.view(heads, a, length) for part, a, length in zip(parts, n_queries, lengths, strict=True)]


def _transposed(parts: Iterable[Tensor]) -> list[Tensor]:
    return [part.transpose(1, 2) for part in parts]


def _products(left: Sequence[Tensor], right: Tensor, sizes: list[int], out: Tensor) -> Tensor:
    """Write the products of `left (heads, a, size)` with the rows of `right` to `out (m, heads, d)`; return it."""
    outputs = out.split([part.shape[1] for part in left])
    for part, states, output in zip(left, _by_row(right, sizes), outputs, strict=True):
        output.copy_(torch.bmm(part, states).transpose(0, 1))
    return out


@lru_cache(maxsize=256)  # shared by all layers and by the runs of one seed; about 50 KB of masks per batch
def row_groups_of(rows: Rows, first: bool, dtype: torch.dtype) -> tuple[RowGroup, ...]:
    """Return the groups of `rows`. Queries are all tokens, or with `first` the first token of each sentence."""
    groups = []
    with torch.inference_mode(False):  # the masks are used in training too
        for (length, sentences), alike in groupby(rows, key=lambda row: (sum(row), len(row))):
            same = list(alike)
            masks = None if sentences == 1 else torch.stack([_mask(row, first, dtype) for row in same])
            groups.append(RowGroup(len(same), sentences if first else length, length, masks))
    return tuple(groups)


def _mask(lengths: tuple[int, ...], first: bool, dtype: torch.dtype) -> Tensor:
    own = torch.repeat_interleave(torch.tensor(lengths))
    queried = torch.arange(len(lengths)) if first else own
    hidden = queried[:, None] != own
    return torch.zeros(1, *hidden.shape, dtype=dtype).masked_fill_(hidden, torch.finfo(dtype).min)
