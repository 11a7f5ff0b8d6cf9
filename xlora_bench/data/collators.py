"""Padded batches."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from xlora_bench.data.tokenize import Example


class PaddedCollator:
    """Pads n examples on the right to the length of the longest.

    Returns `input_ids`, `attention_mask` (and `token_type_ids`) (n, longest) long; `labels` (n,), long or float32;
    `idx` (n,) long; `tokens`, the number of tokens without padding.

    Raises:
        ValueError: if the tokenizer has no padding token.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        if tokenizer.pad_token_id is None:
            name = type(tokenizer).__name__
            raise ValueError(f"tokenizer {name} has no padding token: choose a model that has one")
        self.padding = {"input_ids": tokenizer.pad_token_id, "token_type_ids": tokenizer.pad_token_type_id}

    def __call__(self, examples: Sequence[Example]) -> dict[str, Any]:
        """Return the batch of `examples`."""
        lengths = np.array([len(example["input_ids"]) for example in examples])  # type: ignore[arg-type]
        batch: dict[str, Any] = {
            name: self._padded([example[name] for example in examples], lengths, self.padding[name])  # type: ignore[misc]
            for name in self.padding
            if name in examples[0]
        }
        batch["attention_mask"] = torch.from_numpy(np.arange(lengths.max()) < lengths[:, None]).long()
        return batch | targets(examples) | {"tokens": int(lengths.sum())}

    @staticmethod
    def _padded(parts: Sequence[np.ndarray], lengths: np.ndarray, padding: int) -> torch.Tensor:
        table = np.full((len(parts), lengths.max()), padding, dtype=np.int64)
        for row, part in zip(table, parts, strict=True):
            row[: len(part)] = part
        return torch.from_numpy(table)


def targets(examples: Sequence[Example]) -> dict[str, torch.Tensor]:
    """Return `labels` (n,), long for classes and float32 for scores, and `idx` (n,) long."""
    return {
        "labels": torch.tensor([example["label"] for example in examples]),
        "idx": torch.tensor([example["idx"] for example in examples]),
    }
