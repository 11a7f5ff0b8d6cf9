"""Faster dropout and attention for transformers models on a CPU."""

from torch import nn

from xlora_bench.nn.ops.attention import ATTENTION, attention
from xlora_bench.nn.ops.dropout import Dropout


def use_attention(model: nn.Module) -> None:
    """Replace the attention of a transformers model by `attention`, if it is torch's (`sdpa`)."""
    from transformers import AttentionInterface, AttentionMaskInterface  # noqa: PLC0415 - slow to import
    from transformers.masking_utils import sdpa_mask  # noqa: PLC0415 - slow to import

    if model.config._attn_implementation == "sdpa":  # type: ignore[union-attr]
        AttentionInterface.register(ATTENTION, attention)
        AttentionMaskInterface.register(ATTENTION, sdpa_mask)
        model.set_attn_implementation(ATTENTION)  # type: ignore[operator]


def use_cheap_dropout(model: nn.Module) -> None:
    """Replace the dropout modules and the sdpa attention of a transformers model by those of `nn.ops`."""
    for module in model.modules():
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, Dropout(child.p).train(child.training))

    use_attention(model)
