"""Comparison part of a report: every method against a reference, by column of the table, then over tasks."""

from xlora_bench.results.comparison.text import conclusions
from xlora_bench.results.comparison.write import write_comparison

__all__ = ["conclusions", "write_comparison"]
