"""Training methods: native adapters, baselines, and methods of the peft library."""

from xlora_bench.inject.methods.baseline import Baseline
from xlora_bench.inject.methods.method import Method
from xlora_bench.inject.methods.native import NativeMethod, as_method
from xlora_bench.inject.methods.peft import Peft

__all__ = ["Baseline", "Method", "NativeMethod", "Peft", "as_method"]
