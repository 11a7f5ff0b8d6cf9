import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import TTestPower

from xlora_bench.results.statistics.power import detectable_difference, failure_interval, seeds_to_separate

pytestmark = pytest.mark.slow


def differences(effect, n=6):
    values = np.resize([1.0, -1.0], n)
    return (values - values.mean()) / values.std(ddof=1) + effect


@pytest.mark.parametrize(("effect", "comparisons"), [(0.1, 1), (0.3, 1), (0.86, 1), (0.3, 7), (1.5, 7)])
def test_seeds_needed_are_statsmodels(effect, comparisons):
    expected = TTestPower().solve_power(effect_size=effect, alpha=0.05 / comparisons, power=0.8)
    assert seeds_to_separate(differences(effect), comparisons=comparisons) == math.ceil(expected)


def test_seeds_needed_are_at_least_those_of_an_exact_test():
    assert seeds_to_separate(differences(30.0)) == 6
    assert seeds_to_separate([0.1, 0.1, 0.1]) == 6


def test_no_number_of_seeds_separates_nothing():
    assert seeds_to_separate(differences(0.001)) == math.inf
    assert seeds_to_separate([0.0, 0.0]) == math.inf


@pytest.mark.parametrize(("n", "comparisons"), [(6, 1), (10, 1), (20, 7)])
def test_detectable_difference_is_statsmodels(n, comparisons):
    values = 0.02 * differences(0.3, n)
    expected = TTestPower().solve_power(nobs=n, alpha=0.05 / comparisons, power=0.8) * values.std(ddof=1)
    assert detectable_difference(values, comparisons=comparisons) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("n", [100, 300])
def test_detectable_difference_where_statsmodels_solver_fails(n):
    shift, bound = detectable_difference(differences(0.0, n)) * math.sqrt(n), stats.t.ppf(0.975, n - 1)
    drawn = np.random.default_rng(0)
    t = (drawn.normal(size=200_000) + shift) / np.sqrt(drawn.chisquare(n - 1, size=200_000) / (n - 1))
    assert (np.abs(t) > bound).mean() == pytest.approx(0.8, abs=0.005)


def test_five_seeds_detect_nothing():
    assert detectable_difference(differences(0.0, 5)) == math.inf


def test_failure_rate_is_wilsons():
    low, high = failure_interval(1, 6)
    z, p, n = stats.norm.ppf(0.975), 1 / 6, 6
    centre, half = (p + z**2 / 12) / (1 + z**2 / n), z * math.sqrt(p * (1 - p) / n + z**2 / 144) / (1 + z**2 / n)
    assert (low, high) == pytest.approx((centre - half, centre + half))
    assert failure_interval(0, 6)[1] == pytest.approx(0.3903, abs=1e-4)


@pytest.mark.parametrize(
    "call",
    [
        lambda: seeds_to_separate([0.1]),
        lambda: detectable_difference([0.1]),
        lambda: failure_interval(0, 0),
        lambda: failure_interval(7, 6),
    ],
)
def test_bad_input_is_named(call):
    with pytest.raises(ValueError, match=r"too few|at least one run"):
        call()
