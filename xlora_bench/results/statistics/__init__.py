"""Statistics of runs: of one group, of two methods on one task, of many methods over many tasks.

Pure functions on numbers; `xlora_bench.results.comparison` applies them to records and writes the report. The coverage
of the intervals and the error rates of the tests are simulated in `benchmarks/statistics_truth.py`; the results are in
`docs/statistics.md`.
"""

from xlora_bench.results.statistics.intervals import Interval, bounds_of, difference_interval, mean_interval
from xlora_bench.results.statistics.pairs import Pairs, done_scores, paired
from xlora_bench.results.statistics.significance import describe_significance, significant_from_rest
from xlora_bench.results.statistics.summary import summarise

__all__ = [
    "Interval",
    "Pairs",
    "bounds_of",
    "describe_significance",
    "difference_interval",
    "done_scores",
    "mean_interval",
    "paired",
    "significant_from_rest",
    "summarise",
]
