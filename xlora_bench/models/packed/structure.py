"""Find the parts of a Hugging Face classifier by its structure, without a list of architectures."""

import inspect
from functools import cache
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from xlora_bench.nn.ops.attention import ATTENTION

SDPA = ("sdpa", ATTENTION)
PARTS = {"query", "key", "value", "dropout"}


def classifier_of(model: nn.Module) -> PreTrainedModel:
    """Return the Hugging Face classifier inside `model`, which may be wrapped. Raises ValueError if there is none."""
    for module in model.modules():
        if isinstance(module, PreTrainedModel):
            return module
    raise ValueError(f"`model` ({type(model).__name__}) holds no transformers model to lay batches out for")


def pooling_module_of(net: PreTrainedModel) -> nn.Module:
    """Return the earliest module whose output can be reduced to the first tokens.

    After the attention of the last layer only first tokens are read. If that attention block includes its residual sum
    and norm (the BERT family), it is returned, and the last feed-forward runs on N tokens instead of all. Otherwise it
    is the encoder before the pooler, or the base model without pooler. Gradient checkpointing also needs this: it runs
    layers again when the hook is no longer there.
    """
    base = net.base_model
    encoder = next((child for child in base.children() if _layers(child)), None)
    if encoder is None:
        return base
    last = _layers(encoder)[-1]
    attention = getattr(last, "attention", None)
    if attention is not None and _has_norm(attention) and not getattr(last, "gradient_checkpointing", False):
        return attention
    return encoder if getattr(base, "pooler", None) is not None else base


def plain_attention(net: PreTrainedModel) -> list[nn.Module]:
    """Return the attention blocks of the BERT family that use torch's `scaled_dot_product_attention` or `attention`.

    `block.self` has only `query`, `key`, `value` and dropout (no relative positions). `block.output` adds the block's
    input. Layers with gradient checkpointing are left out, since they run again later.
    """
    encoder = next((child for child in net.base_model.children() if _layers(child)), None)
    layers = [
        layer for layer in (_layers(encoder) if encoder else []) if not getattr(layer, "gradient_checkpointing", 0)
    ]
    blocks = [getattr(layer, "attention", None) for layer in layers]
    return [block for block in blocks if isinstance(block, nn.Module) and _is_plain(block)]


def position_offset(model: nn.Module) -> int:
    """Return the position id of a first token: 0, or `padding_idx + 1` of the position embeddings (RoBERTa)."""
    for name, module in classifier_of(model).named_modules():
        if name.endswith("position_embeddings"):
            padding = getattr(getattr(module, "base_layer", module), "padding_idx", None)
            return 0 if padding is None else padding + 1
    return 0


def masks_embeddings(net: PreTrainedModel) -> bool:
    """Return whether the embeddings take a `mask`. That is the DeBERTa family, whose attention masks are boolean."""
    embeddings = getattr(net.base_model, "embeddings", None)
    return embeddings is not None and _takes_mask(type(embeddings))  # type: ignore[arg-type]


def has_windows(net: PreTrainedModel) -> bool:
    """Return whether layers have different attention windows (ModernBERT). One mask for all layers is then wrong."""
    return len(set(getattr(net.config, "layer_types", None) or ())) > 1


@cache  # used in every forward
def _takes_mask(kind: type[nn.Module]) -> bool:
    return "mask" in inspect.signature(kind.forward).parameters


def _layers(module: nn.Module) -> list[nn.Module]:
    return next((list(child) for child in module.children() if isinstance(child, nn.ModuleList)), [])


def _has_norm(module: nn.Module) -> bool:
    return any(isinstance(part, nn.LayerNorm) for part in module.modules())


def _is_plain(block: nn.Module) -> bool:
    attention: Any = getattr(block, "self", None)
    if not isinstance(attention, nn.Module) or {name for name, _ in attention.named_children()} != PARTS:
        return False
    config: Any = attention.config
    return config._attn_implementation in SDPA and hasattr(attention, "scaling") and not attention.is_causal
