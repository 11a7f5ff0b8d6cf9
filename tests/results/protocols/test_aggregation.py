import math

import numpy as np
import pytest
from scipy import stats

from xlora_bench.results.protocols.aggregation import center, interval, spread


def test_mean_and_its_interval_are_those_of_students_t():
    values = [0.1, 0.2, 0.4, 0.5]
    assert (center(values, "mean"), spread(values, "mean")) == (
        pytest.approx(0.3),
        pytest.approx(np.std(values, ddof=1)),
    )
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    found = interval(values, "mean")
    assert (found.low, found.high, found.level) == (pytest.approx(expected.low), pytest.approx(expected.high), 0.95)


def test_median_and_quartiles():
    assert center([3, 1, 2, 10], "median") == 2.5
    assert spread([1, 2, 3, 4, 5], "median") == 1.0


def test_the_interval_of_a_median_covers_as_often_as_it_says():
    rng = np.random.default_rng(0)
    for n, runs in ((3, 2000), (5, 2000), (8, 100)):
        samples = rng.exponential(size=(runs, n))
        found = [interval(sample.tolist(), "median") for sample in samples]
        covered = np.mean([math.log(2) in one for one in found])
        assert found[0].level == pytest.approx(1 - 2.0 ** (1 - n) if n < 6 else 0.95)
        assert covered == pytest.approx(found[0].level, abs=0.015 if n < 6 else 0.06)
    assert (found[0].low, found[0].high) == (min(samples[0]), max(samples[0]))  # of eight, 99.2 %; one less gives 93 %


@pytest.mark.parametrize("aggregation", ["mean", "median"])
def test_one_run_has_neither_spread_nor_interval(aggregation):
    assert math.isnan(spread([0.5], aggregation))
    assert interval([0.5], aggregation) is None
    assert math.isnan(center([], aggregation))
