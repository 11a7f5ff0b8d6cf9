"""Tokenisation with a disk cache. The cache key is a hash of the rows, the tokenizer and the length limit."""

import hashlib
import json
import logging
import os
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from xlora_bench.data.sources import Rows

FORMAT = 1  # increase it when the arrays of a cache file change their meaning
CHUNK = 4096  # rows per call of the tokenizer: limits the memory of its Python lists
log = logging.getLogger(__name__)

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
    seeds share it. A file with a wrong checksum is written again.

    Raises:
        ValueError: if the cache folder cannot be written, `max_length` is too large or the tokenizer is not fast.
    """
    if max_length > tokenizer.model_max_length:
        limit = tokenizer.model_max_length
        raise ValueError(f"`task.max_length` (={max_length}) must be at most {limit}, the tokenizer's limit")
    key = f"{FORMAT}/{rows.fingerprint}/{tokenizer_hash(tokenizer)}/{max_length}"
    path = Path(cache_dir).expanduser() / "tokens" / f"{hashlib.sha256(key.encode()).hexdigest()}.safetensors"
    tokens = _load(path)
    if tokens is None:
        _store(path, _tokenize(rows, tokenizer=tokenizer, max_length=max_length))
        tokens = _load(path)
        assert tokens is not None, f"{path} was just written"
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


def _load(path: Path) -> Tokens | None:
    """Read a cache file; return None if it is missing or damaged."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            arrays = {name: file.get_tensor(name).numpy() for name in file.keys()}  # noqa: SIM118 - no mapping
            checksum = (file.metadata() or {}).get("sha256")
    except (SafetensorError, OSError) as error:
        log.warning("token cache %s is damaged (%s): it is written again", path, error)
        return None
    if checksum != _checksum(arrays):
        log.warning("token cache %s does not match its checksum: it is written again", path)
        return None
    offsets = arrays.pop("offsets")
    return Tokens(values=arrays, offsets=offsets)


def _store(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write a temporary file and rename it, so that other processes never read a partial file."""
    data = save(arrays, metadata={"sha256": _checksum(arrays)})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".writing-", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        message = f"`paths.cache_dir`: cannot write {path}: {error}; name a folder that can be written"
        raise ValueError(message) from error


def _checksum(arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"{name}:{arrays[name].dtype}:{arrays[name].shape};".encode())
        digest.update(arrays[name].view(np.uint8).data)
    return digest.hexdigest()
