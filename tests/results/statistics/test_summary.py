import math
import statistics

import pandas as pd
import pytest

from xlora_bench.results.statistics import summarise

pytestmark = pytest.mark.slow


def test_mean_and_spread_are_those_of_the_done_runs():
    rows = [("a", "completed", 0.5), ("a", "completed", 0.7), ("a", "completed", 0.6), ("a", "collapsed", 0.0)]
    rows += [("a", "failed", None), ("a", "missing", None), ("b", "completed", 0.9), ("c", "collapsed", math.nan)]
    frame = pd.DataFrame(rows, columns=["method", "status", "score"])
    summary = summarise(frame, ["method"], "score").set_index("method")
    assert summary.loc["a", "mean"] == pytest.approx(statistics.mean([0.5, 0.7, 0.6]))
    assert summary.loc["a", "std"] == pytest.approx(statistics.stdev([0.5, 0.7, 0.6]))
    assert summary.loc["a", ["n", "n_collapsed", "n_failed", "n_missing"]].tolist() == [3, 1, 1, 1]
    assert math.isnan(summary.loc["b", "std"])
    assert summary.loc["c", ["n", "n_collapsed"]].tolist() == [0, 1]
    assert math.isnan(summary.loc["c", "mean"])
