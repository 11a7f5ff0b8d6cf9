"""Adapted layers: a frozen layer plus the updates of its active deltas. One file per layer type."""

from xlora_bench.nn.layers.adapted_block import AdaptedBlock, replaces
from xlora_bench.nn.layers.base import AdaptedLayer, adapted_type, adapts
from xlora_bench.nn.layers.compatibility import base_of, incompatibility
from xlora_bench.nn.layers.conv import AdaptedConv
from xlora_bench.nn.layers.conv1d import AdaptedConv1D
from xlora_bench.nn.layers.embedding import AdaptedEmbedding
from xlora_bench.nn.layers.linear import AdaptedLinear
from xlora_bench.nn.layers.quantized_linear import AdaptedQuantizedLinear, QuantizedLinear

__all__ = [
    "AdaptedBlock",
    "AdaptedConv",
    "AdaptedConv1D",
    "AdaptedEmbedding",
    "AdaptedLayer",
    "AdaptedLinear",
    "AdaptedQuantizedLinear",
    "QuantizedLinear",
    "adapted_type",
    "adapts",
    "base_of",
    "incompatibility",
    "replaces",
]
