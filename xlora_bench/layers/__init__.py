"""Adapted layers: a frozen layer that applies the two factors of each of its active deltas. One small file per type."""

from xlora_bench.layers.base import AdaptedLayer, adapted_type, adapts
from xlora_bench.layers.linear import AdaptedLinear

__all__ = ["AdaptedLayer", "AdaptedLinear", "adapted_type", "adapts"]
