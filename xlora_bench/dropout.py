"""Dropout whose mask costs a fifth on a CPU: torch draws a double for every element, here 16 random bits decide."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STEPS = 1 << 16
"""Probabilities are multiples of 1 / STEPS: p is met to 8e-6, and the kept entries are scaled by what it became."""

ATTENTION = "sdpa_with_cheap_dropout"
"""The name under which transformers finds `attention`."""


def drop(x: Tensor, p: float, *, training: bool = True) -> Tensor:
    """Return `x * mask / (1 - p')` with independent `P(mask = 0) = p'`, `p'` the multiple of 2^-16 nearest to `p`.

    The mask comes from torch's global CPU generator, in fp32. On other devices and in compiled graphs this is
    torch's own dropout.
    """
    if not training or p == 0.0:
        return x
    dropped = round(p * STEPS)
    if x.device.type != "cpu" or dropped in (0, STEPS) or torch.compiler.is_compiling():
        return F.dropout(x, p)
    words = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    bits = words.view(torch.int16)[: x.numel()].view(x.shape)
    keep = bits.float().ge_(dropped - STEPS // 2)  # in floats: torch compares and multiplies booleans one by one
    return x * keep.mul_(STEPS / (STEPS - dropped)).to(x.dtype)


class Dropout(nn.Dropout):
    """`nn.Dropout` with the mask of `drop`."""

    def forward(self, input: Tensor) -> Tensor:
        """Return `input` with entries dropped in training."""
        return drop(input, self.p, training=self.training)


def attention(  # noqa: PLR0917 - as transformers calls it
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    **options: Any,
) -> tuple[Tensor, Tensor | None]:
    """Return transformers' `sdpa` attention; where it drops probabilities on a CPU, `drop` draws the mask.

    `softmax(q k^T s + mask) v` for `q, k, v (N, heads, L, d)`, as `(N, L, heads, d)`.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward  # noqa: PLC0415 - slow to import

    plain = query.shape[:2] == key.shape[:2] and not options.get("is_causal") and options.get("position_bias") is None
    if not (dropout and plain and query.device.type == "cpu") or attention_mask is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout=dropout, **options)
    scaling = options.get("scaling")
    scores = (query * (query.shape[-1] ** -0.5 if scaling is None else scaling)) @ key.transpose(-1, -2)
    if attention_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)
    else:
        scores = scores + attention_mask
    return (drop(scores.softmax(-1), dropout) @ value).transpose(1, 2).contiguous(), None


def use_cheap_dropout(model: nn.Module) -> None:
    """Let the dropout modules of a transformers model, and its sdpa attention, draw their masks by `drop`."""
    for module in model.modules():
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, Dropout(child.p).train(child.training))
    if model.config._attn_implementation == "sdpa":  # type: ignore[union-attr]
        from transformers import AttentionInterface, AttentionMaskInterface  # noqa: PLC0415
        from transformers.masking_utils import sdpa_mask  # noqa: PLC0415

        AttentionInterface.register(ATTENTION, attention)
        AttentionMaskInterface.register(ATTENTION, sdpa_mask)
        model.set_attn_implementation(ATTENTION)  # type: ignore[operator]
