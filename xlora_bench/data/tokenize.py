"""Tokenisation with a disk cache. The cache key is a hash of the rows, the tokenizer and the length limit."""

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from xlora_bench.data.sources import Rows
from xlora_bench.system.checked_file import read_checked, write_checked

FORMAT = 2  # increase it when the arrays of a cache file change their meaning, or the checksum
CHUNK = 4096  # rows per call of the tokenizer: limits the memory of its Python lists

Example = dict[str, np.ndarray | int | float]


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """Token ids of n rows as flat int32 arrays `values[name]` (total,). Row i is at `offsets[i]:offsets[i + 1]`."""

    values: dict[str, np.ndarray]
    offsets: np.ndarray


class TokenizedSplit(Dataset[Example]):
    """One split as examples `{"input_ids", "token_type_ids" (if the tokenizer has them), "label", "idx"}`."""

    def __init__(self, tokens: Tokens, *, labels: np.ndarray, idx: np.ndarray) -> None:
        self.tokens = tokens
        self.labels = labels
        self.idx = idx
        self.lengths = np.diff(tokens.offsets)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Example:
        start, stop = self.tokens.offsets[index], self.tokens.offsets[index + 1]
        ids: Example = {name: flattened[start:stop] for name, flattened in self.tokens.values.items()}
        return ids | {"label": self.labels[index].item(), "idx": int(self.idx[index])}


def tokenizer_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a hash of everything in the tokenizer that determines the token ids of a text.

    Raises:
        ValueError: if the tokenizer is not a fast one: the state of a slow tokenizer cannot be serialised.
    """
    if not tokenizer.is_fast:
        name = type(tokenizer).__name__
        raise ValueError(f"tokenizer {name} has no fast version: choose a model that has one")
    return _hash_of_state(tokenizer.backend_tokenizer.to_str(), tuple(tokenizer.model_input_names))


@lru_cache(maxsize=4)  # parsing a large vocabulary takes a tenth of a second
def _hash_of_state(state: str, inputs: tuple[str, ...]) -> str:
    # The backend stores truncation and padding of the last call. They are call arguments, so they are left out.
    content = {key: value for key, value in json.loads(state).items() if key not in ("truncation", "padding")}
    content["inputs"] = list(inputs)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def tokenized(rows: Rows, *, tokenizer: PreTrainedTokenizerBase, max_length: int, cache_dir: Path) -> TokenizedSplit:
    """Return `rows` as token ids, truncated to `max_length`, from the disk cache or by the tokenizer.

    The cache key covers only the rows that are used, not the whole split. So a subset is tokenised alone, and all
    seeds share it. A damaged file is made again; a folder that cannot be written is no error.

    Raises:
        ValueError: if `max_length` is too large or the tokenizer is not fast.
    """
    if max_length > tokenizer.model_max_length:
        limit = tokenizer.model_max_length
        raise ValueError(f"`task.max_length` (={max_length}) must be at most {limit}, the tokenizer's limit")
    key = f"{FORMAT}/{rows.fingerprint}/{tokenizer_hash(tokenizer)}/{max_length}"
    path = Path(cache_dir).expanduser() / "tokens" / f"{hashlib.sha256(key.encode()).hexdigest()}.safetensors"
    tensors = read_checked(path)
    if tensors is None:
        arrays = _tokenize(rows, tokenizer=tokenizer, max_length=max_length)
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        write_checked(path, tensors)
    values = {name: tensor.numpy() for name, tensor in tensors.items()}
    tokens = Tokens(offsets=values.pop("offsets"), values=values)
    return TokenizedSplit(tokens, labels=rows.labels, idx=rows.idx)


def _tokenize(rows: Rows, *, tokenizer: PreTrainedTokenizerBase, max_length: int) -> dict[str, np.ndarray]:
    columns: dict[str, list[np.ndarray]] = {}
    lengths: list[int] = []
    for start in range(0, len(rows), CHUNK):
        texts = [column[start : start + CHUNK] for column in rows.texts]
        batch = tokenizer(*texts, truncation=True, max_length=max_length, return_attention_mask=False)
        for name, lists in batch.items():
            columns.setdefault(name, []).extend(np.asarray(ids, dtype=np.int32) for ids in lists)
        lengths.extend(map(len, batch["input_ids"]))
    arrays = {name: np.concatenate(parts) for name, parts in columns.items()}
    return arrays | {"offsets": np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)}
