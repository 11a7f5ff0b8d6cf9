"""Collators for packed and unpadded batches."""

from xlora_bench.data.packing.packed import PackedCollator
from xlora_bench.data.packing.unpadded import CheapestCollator, UnpaddedCollator

__all__ = ["CheapestCollator", "PackedCollator", "UnpaddedCollator"]
