"""Scaled dot-product attention for transformers models on a CPU, in padded, packed and unpadded batches."""

from typing import Any

import torch
from torch import Tensor, nn

from xlora_bench.nn.ops.varlen_attention import RowGroup, Rows, grouped_attention, row_groups_of

ATTENTION = "sdpa_with_cheap_dropout"
"""Name under which `attention` is registered in transformers."""


def attention(  # noqa: PLR0917 - as transformers calls it
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    rows: Rows | None = None,
    **options: Any,
) -> tuple[Tensor, Tensor | None]:
    """Return `softmax(s q k^T + mask) v`, `(N, L, heads, d)`, for `query, key, value (N, heads, L, d)`.

    This is transformers' `sdpa` attention, except that dropout on a CPU takes its mask from `drop`. With `rows`, N is 1
    and each token attends within its sentence; `attention_mask` is not read. Fewer queries than keys are then the first
    tokens of the sentences.

    Raises:
        NotImplementedError: if `rows` is given with causal attention, a position bias or grouped key heads.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward  # noqa: PLC0415 - slow to import

    plain = query.shape[:2] == key.shape[:2] and not options.get("is_causal") and options.get("position_bias") is None
    if rows is not None:
        if not plain:
            raise NotImplementedError("`rows` allow no causal attention, position bias or grouped key heads")
        groups = row_groups_of(rows, query.shape[2] != key.shape[2], query.dtype)
    elif dropout and plain and query.device.type == "cpu" and attention_mask is not None:
        groups = (_padded(attention_mask, query, key.shape[2]),)
    else:
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout=dropout, **options)
    scaling = options.get("scaling")
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    states = (each.transpose(1, 2).flatten(0, 1) for each in (query, key, value))
    output = grouped_attention(*states, groups=groups, dropout=dropout, scaling=scaling)
    return output.unflatten(0, (len(query), -1)), None


def _padded(mask: Tensor, query: Tensor, length: int) -> RowGroup:
    """Return the rows of a batch as one group; a boolean mask becomes one that is added to the scores."""
    n_rows, _, n_queries, _ = query.shape
    if mask.dtype == torch.bool:
        added = torch.zeros_like(mask, dtype=query.dtype).masked_fill_(~mask, torch.finfo(query.dtype).min)
    else:
        added = mask.to(query.dtype)
    return RowGroup(n_rows, n_queries, length, added.expand(n_rows, -1, n_queries, length))
