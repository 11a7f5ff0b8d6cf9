"""The report's comparison: every method against a reference, column by column, then over all tasks."""

from xlora_bench.results.comparison.write import write_comparison

__all__ = ["write_comparison"]
