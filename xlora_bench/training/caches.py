"""In-process caches that the runs of a process share: weights, tokenizers, rows and tokens, packing checks."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from xlora_bench.data.corpus import Corpus
from xlora_bench.models.weight_cache import Checkpoint
from xlora_bench.system.lru_cache import LRUCache

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Caches:
    """LRU caches; they change no number: a run with empty caches gives the same."""

    checkpoints: LRUCache[Checkpoint] = field(default_factory=lambda: LRUCache(2))
    tokenizers: "LRUCache[PreTrainedTokenizerBase]" = field(default_factory=lambda: LRUCache(4))
    corpora: LRUCache[Corpus] = field(default_factory=lambda: LRUCache(8))
    packing_checks: LRUCache[str | None] = field(default_factory=lambda: LRUCache(64))
    preflight: LRUCache[list[str]] = field(default_factory=lambda: LRUCache(512))
    counts: LRUCache[list[int]] = field(default_factory=lambda: LRUCache(512))


PROCESS = Caches()
"""The caches of this process, passed on by the main job; each worker process has its own."""
