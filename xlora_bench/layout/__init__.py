"""Exact padding-free batches: the sentences of a step share rows instead of being padded to the longest."""

from xlora_bench.layout.choose import choose_layout
from xlora_bench.layout.exactness import verify
from xlora_bench.layout.flat import CheapestCollator, FlatCollator
from xlora_bench.layout.gather import forward
from xlora_bench.layout.pack import PackedCollator

__all__ = ["CheapestCollator", "FlatCollator", "PackedCollator", "choose_layout", "forward", "verify"]
