"""Choose the batch layout of training and evaluation: packed, unpadded or padded."""

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from typing import Literal

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from xlora_bench.data.collators import PaddedCollator
from xlora_bench.data.packing.packed import PackedCollator
from xlora_bench.data.packing.unpadded import CheapestCollator, UnpaddedCollator
from xlora_bench.data.task import ROW_LENGTHS
from xlora_bench.data.tokenize import Example
from xlora_bench.models.packed.exactness import Collator, Precision, verify
from xlora_bench.models.packed.structure import classifier_of, position_offset
from xlora_bench.nn.ops.attention import ATTENTION
from xlora_bench.system.lru_cache import LRUCache

Layout = Literal["auto", "packed", "padded"]
SAMPLE = 16  # sentences that `verify` compares: two forwards of a few milliseconds
log = logging.getLogger(__name__)


def choose_layout(
    model: nn.Module,
    *,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    layout: Layout = "auto",
    row_lengths: Sequence[int] = ROW_LENGTHS,
    unpadded: bool = True,
    checks: LRUCache[str | None] | None = None,
    precision: Precision = nullcontext,
) -> Collator:
    """Return the collator for training and evaluation: packed, if `verify` finds it exact on a sample of `examples`.

    The check runs where `model` is and within the context `precision()`, so move the model to its device before.

    With `unpadded` (for CPUs), batches for which it is cheaper have no padding at all, if that is verified too. A few
    hundred examples are enough. `auto` falls back to padded batches and logs the reason. `checks` caches the results
    for models with the same structure and samples with the same lengths.

    Raises:
        ValueError: if `layout` is unknown, or it is `packed` and the packed logits differ from the padded ones.
    """
    if layout not in ("auto", "packed", "padded"):
        raise ValueError(f"`layout` (={layout!r}) must be one of auto, packed, padded")
    padded = PaddedCollator(tokenizer)
    if layout == "padded":
        return padded
    checks = LRUCache(2) if checks is None else checks
    sample, offset, name = _sample(examples), position_offset(model), type(classifier_of(model)).__name__
    about = (_structure(model, precision), layout, tuple(row_lengths), _lengths(sample))

    def verdict(collator: Collator) -> str | None:
        reason = verify(model, examples=sample, padded=padded, packed=collator, precision=precision)
        if reason is not None and layout == "auto" and isinstance(collator, PackedCollator):
            log.warning("%s works on padded batches, not on packed ones: %s", name, reason)
        return reason

    rows = PackedCollator(tokenizer, row_lengths=row_lengths, position_offset=offset)
    reason = checks.get((*about, PackedCollator), partial(verdict, rows))
    if reason is not None and layout == "packed":
        raise ValueError(f"layout=packed is not exact for {name}: {reason}; use layout=auto or layout=padded")
    if reason is not None:
        return padded
    if not unpadded or classifier_of(model).config._attn_implementation != ATTENTION:
        return rows
    without_padding = UnpaddedCollator(tokenizer, row_length=min(row_lengths), position_offset=offset)
    reason = checks.get((*about, UnpaddedCollator), partial(verdict, without_padding))
    return rows if reason is not None else CheapestCollator(without_padding, rows)


def _structure(model: nn.Module, precision: Precision) -> tuple[object, ...]:
    """Return what decides whether packing is exact; part of the cache key.

    That is config, attention, module types, dtypes, device and autocast.
    """
    kinds = frozenset(type(module) for module in model.modules())
    types = frozenset((weight.dtype, weight.device) for weight in model.parameters())
    devices = {device.type for _, device in types} - {"meta"}
    with precision():
        autocast = frozenset(
            (device, torch.get_autocast_dtype(device)) for device in devices if torch.is_autocast_enabled(device)
        )
    config = classifier_of(model).config
    return config.to_json_string(), config._attn_implementation, kinds, types, autocast


def _lengths(examples: Sequence[Example]) -> tuple[int, ...]:
    return tuple(len(example["input_ids"]) for example in examples)  # type: ignore[arg-type]


def _sample(examples: Sequence[Example]) -> list[Example]:
    """Return up to 16 examples of different lengths, with the shortest and the longest one."""
    by_length = sorted(examples, key=lambda example: len(example["input_ids"]))  # type: ignore[arg-type]
    if len(by_length) <= SAMPLE:
        return by_length
    step = (len(by_length) - 1) / (SAMPLE - 1)
    return [by_length[round(index * step)] for index in range(SAMPLE)]
