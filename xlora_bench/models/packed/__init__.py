"""Exact padding-free batches: the sentences of a step share rows instead of being padded to the longest."""

from xlora_bench.data.packing.packed import PackedCollator
from xlora_bench.data.packing.unpadded import CheapestCollator, FlatCollator
from xlora_bench.models.packed.choose import choose_layout
from xlora_bench.models.packed.exactness import verify
from xlora_bench.models.packed.forward import forward

__all__ = ["CheapestCollator", "FlatCollator", "PackedCollator", "choose_layout", "forward", "verify"]
