"""Conformance: the promises of a LoRA variant, proved on a small model for every layer type and init scheme."""

from xlora_bench.training.conformance.broken_promise import BrokenPromiseError
from xlora_bench.training.conformance.case import ALPHA, PRECISIONS, RANK, Case, rejection
from xlora_bench.training.conformance.check import Outcome, check_case, check_variant, comparable
from xlora_bench.training.conformance.layer_kinds import KINDS, Kind
from xlora_bench.training.conformance.promises import PROMISES

__all__ = [
    "ALPHA",
    "KINDS",
    "PRECISIONS",
    "PROMISES",
    "RANK",
    "BrokenPromiseError",
    "Case",
    "Kind",
    "Outcome",
    "check_case",
    "check_variant",
    "comparable",
    "rejection",
]
