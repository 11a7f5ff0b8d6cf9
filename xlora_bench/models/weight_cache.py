"""Pretrained models that a process reads once: each run gets a model of its own over the same frozen storage."""

import copy
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from xlora_bench.inject.head_names import head_parameter_names
from xlora_bench.models.pretrained import Pretrained, Weights, weights_hash
from xlora_bench.system.lru_cache import LRUCache, file_fingerprint

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)


class Checkpoint:
    """The weights of one checkpoint in memory, and the last classifiers drawn over them."""

    def __init__(self) -> None:
        self._weights: dict[str, Tensor] = {}
        self._known: dict[int, Weights] = {}
        self._drawn: LRUCache[PreTrainedModel] = LRUCache(8)
        self._sum = 0
        self._hash: str | None = None

    def classifier(self, options: Pretrained, *, num_labels: int, seed: int) -> "tuple[PreTrainedModel, str]":
        """Return a new model, to the bit `options.load(num_labels=num_labels, seed=seed)`, and its `weights_hash`.

        Its parameters share their storage with the checkpoint: `own_what_trains` before training.
        """
        if num_labels not in self._known:
            self._known[num_labels] = self._read(options, num_labels)
        known = self._known[num_labels]
        drawn = self._drawn.get(
            (options, num_labels, seed), lambda: options.read(num_labels=num_labels, seed=seed, weights=known)[0]
        )
        return options.prepared(sharing_copy(drawn)), self._hash_of(drawn, known)

    def is_intact(self) -> bool:
        """Return whether nobody has written to the weights."""
        return self._sum == bit_sum(self._weights)

    def _read(self, options: Pretrained, num_labels: int) -> Weights:
        """Return what the files hold for a classifier of `num_labels`; what is known already is kept once."""
        model, missing = options.read(num_labels=num_labels, seed=0)
        tensors: dict[str, Tensor] = {name: value for name, value in model.state_dict().items() if name not in missing}
        for name, value in tensors.items():
            if torch.equal(value, self._weights.setdefault(name, value)):
                tensors[name] = self._weights[name]
        self._sum = bit_sum(self._weights)
        return Weights(architecture=type(model), tensors=tensors)

    def _hash_of(self, model: nn.Module, known: Weights) -> str:
        """Return `weights_hash(model)`, computed once unless a part of the base is drawn too."""
        base = {name for name, _ in model.named_parameters()} - head_parameter_names(model)
        if not base <= known.tensors.keys():
            return weights_hash(model)
        self._hash = self._hash or weights_hash(model)
        return self._hash


def classifier(
    options: Pretrained, cache: LRUCache[Checkpoint], *, num_labels: int, seed: int
) -> "tuple[PreTrainedModel, str]":
    """Return what `options.load` gives and its `weights_hash`, without reading a file that was read before.

    Weights that somebody wrote to are read again, so that every run starts from the pretrained ones.
    """
    key = _key(options)
    if not cache.get(key, Checkpoint).is_intact():
        log.warning("the weights of %s were written to in memory; they are read again", options.name)
        cache.drop(key)
    return cache.get(key, Checkpoint).classifier(options, num_labels=num_labels, seed=seed)


def tokenizer(options: Pretrained, cache: "LRUCache[PreTrainedTokenizerBase]") -> "PreTrainedTokenizerBase":
    """Return the model's tokenizer, shared by the runs that use `cache`."""
    return cache.get(_key(options), options.tokenizer)


def own_what_trains(model: nn.Module) -> None:
    """Give every parameter that requires gradients a storage of its own; frozen ones go on sharing theirs."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.clone(memory_format=torch.contiguous_format)


def sharing_copy(model: "PreTrainedModel") -> "PreTrainedModel":
    """Return a copy of `model` with modules and buffers of its own, and its parameters over the same storage."""
    aliases: dict[int, object] = {
        id(parameter): nn.Parameter(parameter.detach(), requires_grad=parameter.requires_grad)
        for parameter in model.parameters()
    }
    return copy.deepcopy(model, aliases)


def bit_sum(weights: dict[str, Tensor]) -> int:
    """Return the sum of all weights read as whole numbers: any one write changes it."""
    total = 0
    for weight in weights.values():
        flattened = weight.detach().contiguous().view(-1).view(torch.uint8)
        whole = flattened[: len(flattened) // 8 * 8].view(torch.int64)
        total += int(whole.sum()) + int(flattened[len(whole) * 8 :].sum())
    return total


def _key(options: Pretrained) -> tuple[object, ...]:
    location = options.location()
    return location, options.revision, file_fingerprint(Path(location))
