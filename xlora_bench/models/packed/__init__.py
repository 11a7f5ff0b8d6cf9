"""Packed batches: several sentences share a row instead of being padded. Checked for exactness before use."""

from xlora_bench.data.packing.packed import PackedCollator
from xlora_bench.data.packing.unpadded import CheapestCollator, UnpaddedCollator
from xlora_bench.models.packed.choose import choose_layout
from xlora_bench.models.packed.compilable import CompilableForward
from xlora_bench.models.packed.exactness import verify
from xlora_bench.models.packed.forward import forward

__all__ = [
    "CheapestCollator",
    "CompilableForward",
    "PackedCollator",
    "UnpaddedCollator",
    "choose_layout",
    "forward",
    "verify",
]
