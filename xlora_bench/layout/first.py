"""The last attention layer for the queries of first tokens alone: after it nothing looks at another token."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from xlora_bench.attention import attention as attend


@contextmanager
def first_queries_only(block: nn.Module, *, queries: Tensor, answers: Tensor) -> Iterator[None]:
    """Let a BERT-like attention block return the states (N, 1, d) of N first tokens while the context is open.

    Of the hidden states (rows, L, d), `queries` (rows, S) are the columns that ask, and `answers` (N,) the places of
    the first tokens in the flattened `queries`. Keys and values are those of all tokens; query, softmax, output and
    norm are computed at S columns instead of L.
    """
    attention: Any = block.self
    output: Any = block.output
    rows = torch.arange(len(queries), device=queries.device)[:, None]

    def forward(hidden: Tensor, attention_mask: Tensor, *args: Any, **options: Any) -> tuple[Tensor, None]:
        places = (rows * hidden.shape[1] + queries).flatten()
        asking = hidden.flatten(0, 1).index_select(0, places).unflatten(0, queries.shape)
        found, _ = attend(
            attention,
            _heads(attention.query(asking), attention),
            _heads(attention.key(hidden), attention),
            _heads(attention.value(hidden), attention),
            attention_mask[rows, :, queries].transpose(1, 2),
            dropout=attention.dropout.p if attention.training else 0.0,
            scaling=attention.scaling,
        )
        asking, found = (states.flatten(0, 1).index_select(0, answers) for states in (asking, found.flatten(2)))
        return output(found, asking).unsqueeze(1), None

    before = block.__dict__.get("forward")
    block.forward = forward
    try:
        yield
    finally:
        del block.forward
        if before is not None:
            block.forward = before


def _heads(states: Tensor, attention: Any) -> Tensor:
    """Return `states (rows, n, d)` as (rows, heads, n, d / heads)."""
    return states.unflatten(-1, (-1, attention.attention_head_size)).transpose(1, 2)
