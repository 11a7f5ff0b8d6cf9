import numpy as np
import pandas as pd
import pytest
from scipy import stats

from xlora_bench.data.task import CLASSIFICATION_METRICS, RANGES, REGRESSION_METRICS
from xlora_bench.results.statistics import bounds_of, difference_interval, done_scores, mean_interval, paired

pytestmark = pytest.mark.slow

SCORES = [0.81, 0.84, 0.79, 0.86, 0.83]


def test_t_interval_is_scipys():
    found = mean_interval(SCORES)
    expected = stats.ttest_1samp(SCORES, 0.0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-12)
    assert found.estimate == pytest.approx(np.mean(SCORES))
    assert (found.n, found.method, found.level) == (5, "t", 0.95)


def test_bca_interval_is_scipys():
    found = mean_interval(SCORES, method="bca", resamples=499)
    expected = stats.bootstrap(
        (SCORES,), np.mean, n_resamples=499, method="BCa", rng=np.random.default_rng(0)
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-12)


def test_bca_is_narrower_than_t_for_few_seeds():
    t, bca = mean_interval(SCORES), mean_interval(SCORES, method="bca")
    assert t.low < bca.low < bca.high < t.high


def test_level_widens():
    assert mean_interval(SCORES, level=0.99).low < mean_interval(SCORES).low


@pytest.mark.parametrize("method", ["t", "bca"])
def test_equal_values_have_an_interval_without_width(method):
    found = mean_interval([0.5, 0.5, 0.5], method=method)
    assert (found.low, found.estimate, found.high) == (0.5, 0.5, 0.5)
    assert 0.5 in found
    assert 0.51 not in found


def test_difference_is_paired_by_seed():
    first, second = {0: 0.9, 1: 0.5, 2: 0.7, 7: 0.1}, {2: 0.6, 0: 0.8, 1: 0.45, 9: 0.9}
    found = difference_interval(first, second)
    expected = stats.ttest_rel([0.9, 0.5, 0.7], [0.8, 0.45, 0.6]).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-9)
    assert found.n == 3
    pairs = paired(first, second)
    assert (pairs.seeds, pairs.only_first, pairs.only_second) == ([0, 1, 2], [7], [9])


def test_bounds_are_the_ranges_of_the_metrics():
    assert set(RANGES) == {*CLASSIFICATION_METRICS, *REGRESSION_METRICS}
    assert bounds_of(["accuracy"]) == bounds_of(["f1", "accuracy"]) == (0, 1)
    assert bounds_of(["accuracy", "pearson"]) == (-1, 1)
    assert bounds_of(["accuracy", "macro_f1"]) == bounds_of([]) == (-np.inf, np.inf)


@pytest.mark.parametrize("method", ["t", "bca"])
def test_an_interval_is_cut_at_the_bounds(method):
    scores = [0.7, 0.99, 1.0]
    whole, found = (mean_interval(scores, method=method, bounds=b) for b in ((-np.inf, np.inf), (0, 1)))
    assert (found.low, found.high) == (max(whole.low, 0), min(whole.high, 1))
    assert method == "bca" or whole.high > 1
    assert mean_interval([3.0, 4.0], bounds=(0, 1)).high == 3.5  # scores that are not of this range


def test_a_difference_is_cut_at_the_largest_difference():
    first, second = {0: 1.0, 1: 0.1}, {0: 0.0, 1: 0.1}
    found = difference_interval(first, second, bounds=(0, 1))
    assert (found.low, found.high) == (-1, 1)
    assert difference_interval(first, second, bounds=(-1, 1)).high == 2
    assert difference_interval(first, second).high > 2


def test_a_cut_interval_contains_the_truth_exactly_when_the_whole_one_does():
    runs = np.random.default_rng(0).beta(12, 0.5, (2000, 3))  # accuracies near 1: mean 0.96
    truth = 12 / 12.5
    whole = [mean_interval(scores) for scores in runs]
    found = [mean_interval(scores, bounds=(0, 1)) for scores in runs]
    assert [truth in each for each in found] == [truth in each for each in whole]
    assert all(0 <= each.low <= each.high <= 1 for each in found)
    assert np.mean([each.high > 1 for each in whole]) > 0.5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mean_interval([0.5]), "1 values are too few: at least 2"),
        (lambda: mean_interval([0.5, float("nan")]), "must be finite"),
        (lambda: mean_interval(SCORES, level=95), r"level \(=95\)"),
        (lambda: mean_interval(SCORES, method="normal"), r"method \(='normal'\) must be one of t, bca"),
        (lambda: difference_interval({0: 1.0}, {1: 1.0}), "0 and 1 share none"),
        (lambda: difference_interval({0: 1.0}, {0: 0.0}), "too few"),
        (lambda: paired({0: float("inf")}, {0: 1.0}), "must be finite"),
        (lambda: paired({}, {0: 1.0}), "too few"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def frame(rows):
    return pd.DataFrame(rows, columns=["adapter", "seed", "status", "score"])


def test_only_done_runs_have_scores():
    runs = frame([("lora", 0, "completed", 0.5), ("lora", 1, "collapsed", 0.0), ("lu", 0, "failed", None)])
    assert done_scores(runs, runs["adapter"]) == {"lora": {0: 0.5}, "lu": {}}


def test_two_runs_with_one_seed_do_not_pair():
    runs = frame([("lora", 3, "completed", 0.5), ("lora", 3, "completed", 0.6)])
    with pytest.raises(ValueError, match="'lora' has two runs with seed 3"):
        done_scores(runs, runs["adapter"])
