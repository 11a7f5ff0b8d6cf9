"""Collators of batches with little or no padding."""

from xlora_bench.data.packing.packed import PackedCollator
from xlora_bench.data.packing.unpadded import CheapestCollator, UnpaddedCollator

__all__ = ["CheapestCollator", "PackedCollator", "UnpaddedCollator"]
