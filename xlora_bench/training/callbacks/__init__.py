"""Callbacks of a run, one file each."""

from xlora_bench.training.callbacks.checkpoint import EpochCheckpoint
from xlora_bench.training.callbacks.costs import Costs
from xlora_bench.training.callbacks.factors import FactorMonitor
from xlora_bench.training.callbacks.streams import EpochStreams

__all__ = ["Costs", "EpochCheckpoint", "EpochStreams", "FactorMonitor"]
