from itertools import product

import numpy as np
import pytest
from scipy import stats

from xlora_bench.results.statistics.permutation_test import (
    holm,
    pairs_needed,
    sign_flip_test,
    smallest_p,
    westfall_young,
)

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("n", [2, 5, 6, 9])
def test_sign_flip_test_is_scipys_exact_one(n):
    differences = np.random.default_rng(n).normal(0.4, 1, size=n)
    expected = stats.permutation_test(
        (differences, np.zeros(n)),
        lambda a, b, axis: np.mean(a - b, axis=axis),
        permutation_type="samples",
        n_resamples=np.inf,
        vectorized=True,
    ).pvalue
    assert sign_flip_test(differences) == pytest.approx(min(1.0, expected), abs=1e-12)


@pytest.mark.parametrize("n", range(1, 9))
def test_smallest_p_is_reached_when_all_differences_agree(n):
    assert sign_flip_test(np.arange(1, n + 1)) == pytest.approx(smallest_p(n)) == pytest.approx(2 / 2**n)


def test_five_seeds_cannot_reach_five_percent_and_six_can():
    assert smallest_p(5) == 0.0625
    assert smallest_p(6) == 0.03125
    assert pairs_needed() == 6
    assert pairs_needed(comparisons=7) == 9  # Holm's first step with eight methods
    assert [smallest_p(n) <= 0.05 / 7 for n in (8, 9)] == [False, True]


def test_equal_scores_are_no_evidence():
    assert sign_flip_test([0.0, 0.0, 0.0]) == 1.0
    assert sign_flip_test([0.1, -0.1, 0.1, -0.1]) == 1.0


def test_many_seeds_are_sampled_and_near_the_exact_value():
    differences = np.random.default_rng(5).normal(0.5, 1, size=16)
    flips = np.abs(np.array(list(product([1.0, -1.0], repeat=16))) @ differences)
    exact = (flips >= abs(differences.sum()) - 1e-9).mean()
    assert sign_flip_test(differences) == pytest.approx(exact, abs=4 * np.sqrt(exact / 20_000))
    assert sign_flip_test(np.ones(40)) == pytest.approx(1 / 20_001)  # never 0


def brute_step_down(differences):
    """Westfall and Young 1993, algorithm 2.8, over all sign vectors."""
    units = differences / np.sqrt((differences**2).sum(axis=0))
    flipped = np.array([np.abs(np.array(signs) @ units) for signs in product([1, -1], repeat=len(units))])
    observed = flipped[0]
    order, adjusted, worst = np.argsort(-observed), np.empty(len(observed)), 0.0
    for step, column in enumerate(order):
        left = order[step:]
        worst = max(worst, (flipped[:, left].max(axis=1) >= observed[column] - 1e-9).mean())
        adjusted[column] = worst
    return adjusted


@pytest.mark.parametrize("seed", range(4))
def test_step_down_is_westfall_and_youngs(seed):
    rng = np.random.default_rng(seed)
    differences = rng.normal(size=(6, 5)) + np.array([2.0, 1.0, 0.5, 0.0, 0.0])
    assert westfall_young(differences) == pytest.approx(brute_step_down(differences), abs=1e-12)


def test_step_down_reaches_the_smallest_p_however_many_comparisons():
    differences = np.random.default_rng(0).normal(size=(6, 7))
    differences[:, 3] = 1 + 0.01 * differences[:, 3]
    assert westfall_young(differences)[3] == pytest.approx(2 / 2**6)
    raw = [sign_flip_test(column) for column in differences.T]
    assert holm(raw)[3] == pytest.approx(7 * 2 / 2**6)
    assert (westfall_young(differences) >= np.array(raw) - 1e-12).all()


def test_step_down_holds_its_level_with_seven_comparisons_that_share_a_reference():
    rng = np.random.default_rng(1)
    runs = rng.normal(size=(500, 7, 8))
    rejected = np.mean([westfall_young(each[:, 1:] - each[:, :1]).min() <= 0.05 for each in runs])
    assert rejected <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 500)


def test_missing_pairs_leave_their_comparison_with_the_others():
    differences = np.array([[1.0, 1.0], [1.1, np.nan], [0.9, 1.2], [1.0, np.nan], [1.2, 0.8], [1.0, 1.0]])
    found = westfall_young(differences)
    assert found[0] == pytest.approx(2 / 2**6)
    assert found[1] >= smallest_p(4)


@pytest.mark.parametrize("values", [[], [0.1, float("nan")], [float("inf")]])
def test_bad_differences_are_named(values):
    with pytest.raises(ValueError, match=r"too few|finite"):
        sign_flip_test(values)


def test_a_comparison_without_a_pair_is_named():
    with pytest.raises(ValueError, match="at least one pair"):
        westfall_young(np.array([[1.0, np.nan], [2.0, np.nan]]))


def test_holm_is_statsmodels():
    from statsmodels.stats.multitest import multipletests

    p_values = [*np.random.default_rng(0).uniform(0, 0.2, size=9), 0.03, 0.03]
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert len(holm([])) == 0
