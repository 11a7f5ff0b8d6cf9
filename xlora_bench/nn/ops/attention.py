"""Attention that drops probabilities, as one autograd function: the rows of a batch are read where they lie."""

from typing import Any

import torch
from torch import Tensor, nn

from xlora_bench.nn.ops.dropout import draws_bits, drop, mask_of
from xlora_bench.nn.ops.varlen_attention import Rows, varlen_attention

ATTENTION = "sdpa_with_cheap_dropout"
"""The name under which transformers finds `attention`."""
SHORT = 32
"""Rows of fewer tokens are multiplied together: a call per row costs more there than copying them."""


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
    """Return transformers' `sdpa` attention; where it drops probabilities on a CPU, `drop` draws the mask.

    `softmax(q k^T s + mask) v` for `q, k, v (N, heads, L, d)`, as `(N, L, heads, d)`. With `rows` it is
    `varlen_attention`, and the mask is not read.

    Raises:
        NotImplementedError: `rows`, and scores that a position bias or the order of tokens changes.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward  # noqa: PLC0415 - slow to import

    plain = query.shape[:2] == key.shape[:2] and not options.get("is_causal") and options.get("position_bias") is None
    scaling = options.get("scaling")
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    if rows is not None:
        if not plain:
            raise NotImplementedError("rows of sentences have plain attention only")
        return varlen_attention(query, key, value, rows, dropout=dropout, scaling=scaling), None
    if not (dropout and plain and query.device.type == "cpu") or attention_mask is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout=dropout, **options)
    if attention_mask.dtype == torch.bool:
        hidden = torch.finfo(query.dtype).min
        attention_mask = torch.zeros_like(attention_mask, dtype=query.dtype).masked_fill_(~attention_mask, hidden)
    fused = key.shape[2] >= SHORT and query.dtype == attention_mask.dtype == torch.float32
    if fused and draws_bits(query, dropout):
        return DroppedAttention.apply(query, key, value, attention_mask, dropout, scaling), None
    scores = (query * scaling) @ key.transpose(-1, -2) + attention_mask
    return (drop(scores.softmax(-1), dropout) @ value).transpose(1, 2).contiguous(), None


class DroppedAttention(torch.autograd.Function):
    """`O = (P * M) V` with `P = softmax(s Q K^T + mask)` for `Q (N, heads, S, d)` and `K, V (N, heads, L, d)`.

    M is the mask of `drop`; O is `(N, S, heads, d)`. With its gradient G: `dV = (P * M)^T G`, `dP = (G V^T) * M`,
    `dZ = P * (dP - rowsum(dP * P))`, `dQ = s dZ K`, `dK = s dZ^T Q`. Up to rounding what autograd makes of the same
    operations; the products of a row of the batch take its heads as they lie between those of other tokens, which
    torch copies together first where it multiplies all rows at once.
    """

    @staticmethod
    def forward(  # noqa: PLR0917 - autograd functions take no keywords
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, p: float, scaling: float
    ) -> Tensor:
        """Return O, `(N, S, heads, d)`."""
        query = query * scaling
        scores = _products(query, key.transpose(-1, -2)).add_(mask)
        probabilities = torch.softmax(scores, -1, out=scores)
        keep = mask_of(probabilities, p)
        kept = probabilities * keep
        ctx.scaling = scaling
        ctx.save_for_backward(query, key, value, probabilities, keep, kept)
        return _products(kept, value).transpose(1, 2).contiguous()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of Q, K and V that are needed."""
        query, key, value, probabilities, keep, kept = ctx.saved_tensors
        needs_query, needs_key, needs_value, *_ = ctx.needs_input_grad
        gradient = gradient.transpose(1, 2)
        d_value = _products(kept.transpose(-1, -2), gradient) if needs_value else None
        if not (needs_query or needs_key):
            return None, None, d_value, None, None, None
        d_scores = _products(gradient, value.transpose(-1, -2)).mul_(keep)
        torch._softmax_backward_data(d_scores, probabilities, -1, d_scores.dtype, grad_input=d_scores)
        d_query = _products(d_scores, key).mul_(ctx.scaling) if needs_query else None
        d_key = _products(d_scores.transpose(-1, -2), query) if needs_key else None
        return d_query, d_key, d_value, None, None, None


def _products(left: Tensor, right: Tensor) -> Tensor:
    """Return `left (N, heads, a, b) @ right (N, heads, b, c)`, contiguous, without a copy of either."""
    result = left.new_empty(*left.shape[:-1], right.shape[-1])
    for a, b, out in zip(left.unbind(), right.unbind(), result.unbind(), strict=True):
        torch.bmm(a, b, out=out)
    return result
