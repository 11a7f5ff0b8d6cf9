"""In-process cache of pretrained models. The runs of a sweep share the storage of the frozen weights."""

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
    """The weights of one checkpoint in memory, and an LRU cache of classifiers with a head drawn for them."""

    def __init__(self) -> None:
        self._weights: dict[str, Tensor] = {}
        self._known: dict[int, Weights] = {}
        self._drawn: LRUCache[PreTrainedModel] = LRUCache(8)
        self._sum = 0
        self._hash: str | None = None

    def classifier(self, options: Pretrained, *, num_labels: int, seed: int) -> "tuple[PreTrainedModel, str]":
        """Return a new model, bit-identical to `options.load` with `num_labels` and `seed`, and its `weights_hash`.

        Its parameters share their storage with the checkpoint: call `own_what_trains` before training.
        """
        if num_labels not in self._known:
            self._known[num_labels] = self._read(options, num_labels)
        known = self._known[num_labels]
        drawn = self._drawn.get(
            (options, num_labels, seed),
            lambda: self._reduced(options, options.read(num_labels=num_labels, seed=seed, weights=known)[0]),
        )
        return options.prepared(sharing_copy(drawn)), self._hash_of(drawn, known)

    def is_intact(self) -> bool:
        """Return whether the weights are unchanged since they were read."""
        return self._sum == bit_sum(self._weights)

    def _read(self, options: Pretrained, num_labels: int) -> Weights:
        """Read the weights for a classifier with `num_labels`. Tensors that are in memory already are shared."""
        model, missing = options.read(num_labels=num_labels, seed=0)
        tensors: dict[str, Tensor] = {name: value for name, value in model.state_dict().items() if name not in missing}
        for name, value in tensors.items():
            if torch.equal(value, self._weights.setdefault(name, value)):
                tensors[name] = self._weights[name]
        self._sum = bit_sum(self._weights)
        return Weights(architecture=type(model), tensors=tensors)

    def _reduced(self, options: Pretrained, model: "PreTrainedModel") -> "PreTrainedModel":
        """Return `options.reduced(model)`. Base weights that are in memory already are shared."""
        if not options.reduces:
            return model
        head = head_parameter_names(options.reduced(model))
        for name, parameter in model.named_parameters():
            own = parameter.data
            if name not in head and torch.equal(own, kept := self._weights.setdefault(f"{name} (reduced)", own)):
                parameter.data = kept
        self._sum = bit_sum(self._weights)
        return model

    def _hash_of(self, model: nn.Module, known: Weights) -> str:
        """Return `weights_hash(model)`. Computed once, unless the checkpoint lacks a part of the base."""
        base = {name for name, _ in model.named_parameters()} - head_parameter_names(model)
        if not base <= known.tensors.keys():
            return weights_hash(model)
        self._hash = self._hash or weights_hash(model)
        return self._hash


def classifier(
    options: Pretrained, cache: LRUCache[Checkpoint], *, num_labels: int, seed: int
) -> "tuple[PreTrainedModel, str]":
    """Return the model of `options.load` and its `weights_hash`. Weights in `cache` are not read from disk again.

    If the cached weights were modified in memory, they are read again, so every run starts from the pretrained weights.
    """
    key = _key(options)
    if not cache.get(key, Checkpoint).is_intact():
        log.warning("the weights of %s were written to in memory; they are read again", options.name)
        cache.drop(key)
    return cache.get(key, Checkpoint).classifier(options, num_labels=num_labels, seed=seed)


def tokenizer(options: Pretrained, cache: "LRUCache[PreTrainedTokenizerBase]") -> "PreTrainedTokenizerBase":
    """Return the model's tokenizer, shared by all runs that use `cache`."""
    return cache.get(_key(options), options.tokenizer)


def own_what_trains(model: nn.Module) -> None:
    """Copy every parameter that requires gradients to its own storage. Frozen parameters still share theirs."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.clone(memory_format=torch.contiguous_format)


def sharing_copy(model: "PreTrainedModel") -> "PreTrainedModel":
    """Return a copy of `model` with new modules and buffers. Its parameters share the storage of the original."""
    aliases: dict[int, object] = {
        id(parameter): nn.Parameter(parameter.detach(), requires_grad=parameter.requires_grad)
        for parameter in model.parameters()
    }
    return copy.deepcopy(model, aliases)


def bit_sum(weights: dict[str, Tensor]) -> int:
    """Return a checksum: the sum of all weights read as integers. Any single changed value changes it."""
    total = 0
    for weight in weights.values():
        flattened = weight.detach().contiguous().view(-1).view(torch.uint8)
        whole = flattened[: len(flattened) // 8 * 8].view(torch.int64)
        total += int(whole.sum()) + int(flattened[len(whole) * 8 :].sum())
    return total


def _key(options: Pretrained) -> tuple[object, ...]:
    location = options.location()
    return location, options.revision, options.dtype, options.quantization, file_fingerprint(Path(location))
