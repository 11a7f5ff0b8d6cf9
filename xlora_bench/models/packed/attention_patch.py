"""Replacement of the forward of a BERT attention block for packed batches. Uses the block's own layers."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from xlora_bench.nn.layers.joint import joint_linear
from xlora_bench.nn.ops.attention import attention as attend


@contextmanager
def attends_jointly(
    block: nn.Module, *, queries: Tensor | None = None, answers: Tensor | None = None
) -> Iterator[None]:
    """Within a `with` block, let the attention `block` compute query, key and value by `joint_linear`.

    With `queries` and `answers`, the block returns only the states of the N first tokens, (N, 1, d). `queries`
    (rows, S) are the columns of the queries in the hidden states (rows, L, d). `answers` (N,) are the indices of the
    first tokens in the flattened `queries`. Keys and values are those of all tokens; query, softmax, output and norm
    are computed for S columns instead of L. With the option `rows`, the hidden states are (1, T, d) without padding,
    and the attention is within each sentence of `rows`.
    """
    attention: Any = block.self
    output: Any = block.output

    def forward(hidden: Tensor, attention_mask: Tensor, *args: Any, **options: Any) -> tuple[Tensor, None]:
        layers, unpadded = (attention.query, attention.key, attention.value), options.get("rows")
        if queries is None:
            queried, mask = hidden, attention_mask
            query, key, value = joint_linear(hidden, layers)
        else:
            rows = torch.arange(len(queries), device=queries.device)[:, None]
            indices = (rows * hidden.shape[1] + queries).flatten()
            queried = hidden.flatten(0, 1).index_select(0, indices).unflatten(0, queries.shape)
            mask = attention_mask if unpadded else attention_mask[rows, :, queries].transpose(1, 2)
            query, (key, value) = attention.query(queried), joint_linear(hidden, layers[1:])
        width = attention.attention_head_size
        query, key, value = (each.unflatten(-1, (-1, width)).transpose(1, 2) for each in (query, key, value))
        dropout = attention.dropout.p if attention.training else 0.0
        context, _ = attend(
            attention, query, key, value, mask, dropout=dropout, scaling=attention.scaling, rows=unpadded
        )
        context = context.flatten(2)
        if answers is None:
            return output(context, queried), None
        queried, context = (each.flatten(0, 1).index_select(0, answers) for each in (queried, context))
        return output(context, queried).unsqueeze(1), None

    before = block.__dict__.get("forward")
    block.forward = forward
    try:
        yield
    finally:
        del block.forward
        if before is not None:
            block.forward = before
