"""Faster dropout and attention for transformers models on a CPU."""

from torch import nn

from xlora_bench.nn.ops.attention import ATTENTION, attention
from xlora_bench.nn.ops.dropout import Dropout


def use_attention(model: nn.Module) -> None:
    """Let a transformers model whose attention is torch's (`sdpa`) run `attention` instead."""
    from transformers import AttentionInterface, AttentionMaskInterface  # noqa: PLC0415 - slow to import
    from transformers.masking_utils import sdpa_mask  # noqa: PLC0415 - slow to import

    if model.config._attn_implementation == "sdpa":  # type: ignore[union-attr]
        AttentionInterface.register(ATTENTION, attention)
        AttentionMaskInterface.register(ATTENTION, sdpa_mask)
        model.set_attn_implementation(ATTENTION)  # type: ignore[operator]


def use_cheap_dropout(model: nn.Module) -> None:
    """Let the dropout modules of a transformers model, and its sdpa attention, draw their masks by `drop`."""
    for module in model.modules():
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, Dropout(child.p).train(child.training))

    use_attention(model)
