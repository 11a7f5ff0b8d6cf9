"""Which layout a model trains and is evaluated with."""

import logging
from collections.abc import Sequence
from typing import Literal

from torch import nn
from transformers import PreTrainedTokenizerBase

from xlora_bench.layout.anatomy import classifier_of, position_offset
from xlora_bench.layout.exactness import Collator, verify
from xlora_bench.layout.pack import ROW_LENGTHS, PackedCollator
from xlora_bench.tasks.collate import PaddedCollator
from xlora_bench.tasks.tokenize import Example

Layout = Literal["auto", "packed", "padded"]
SAMPLE = 16  # sentences that verify compares: two forwards of milliseconds
log = logging.getLogger(__name__)


def choose_layout(
    model: nn.Module,
    *,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    layout: Layout = "auto",
    row_lengths: Sequence[int] = ROW_LENGTHS,
) -> Collator:
    """Return the collator of training and evaluation: packed, if that is proved exact on some of `examples`.

    A few hundred examples are enough. `auto` falls back to padding to the longest sentence and logs why.

    Raises:
        ValueError: `layout` is unknown, or it is `packed` and the packed logits are not the padded ones.
    """
    if layout not in ("auto", "packed", "padded"):
        raise ValueError(f"`layout` (={layout!r}) must be one of auto, packed, padded")
    padded = PaddedCollator(tokenizer)
    if layout == "padded":
        return padded
    packed = PackedCollator(tokenizer, row_lengths=row_lengths, position_offset=position_offset(model))
    reason = verify(model, examples=_sample(examples), padded=padded, packed=packed)
    if reason is None:
        return packed
    name = type(classifier_of(model)).__name__
    if layout == "packed":
        raise ValueError(f"layout=packed is not exact for {name}: {reason}; use layout=auto or layout=padded")
    log.warning("%s works on padded batches, not on packed ones: %s", name, reason)
    return padded


def _sample(examples: Sequence[Example]) -> list[Example]:
    """Return up to 16 examples from the shortest to the longest: limits of windows show at the ends."""
    by_length = sorted(examples, key=lambda example: len(example["input_ids"]))  # type: ignore[arg-type]
    if len(by_length) <= SAMPLE:
        return by_length
    step = (len(by_length) - 1) / (SAMPLE - 1)
    return [by_length[round(place * step)] for place in range(SAMPLE)]
