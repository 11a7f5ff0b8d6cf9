"""Adapted layers: a frozen layer that applies the two factors of each of its active deltas. One small file per type."""

from xlora_bench.layers.base import AdaptedLayer, adapted_type, adapts
from xlora_bench.layers.conv import AdaptedConv
from xlora_bench.layers.conv1d import AdaptedConv1D
from xlora_bench.layers.embedding import AdaptedEmbedding
from xlora_bench.layers.linear import AdaptedLinear
from xlora_bench.layers.refusals import base_of, refusal

__all__ = [
    "AdaptedConv",
    "AdaptedConv1D",
    "AdaptedEmbedding",
    "AdaptedLayer",
    "AdaptedLinear",
    "adapted_type",
    "adapts",
    "base_of",
    "refusal",
]
