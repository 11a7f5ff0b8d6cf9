import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tests.helpers.names import ROOT
from xlora_bench.results.statistics.across import (
    average_ranks,
    critical_difference,
    friedman_test,
    nemenyi_test,
    wilcoxon_holm,
)
from xlora_bench.results.statistics.iqm import LEAST_RUNS, LEAST_TASKS, interquartile_mean, iqm_interval

pytestmark = pytest.mark.slow

DEMSAR = pd.DataFrame(  # Demšar 2006, table 6: AUC of four classifiers on 14 data sets
    [
        (0.763, 0.768, 0.771, 0.798), (0.599, 0.591, 0.590, 0.569), (0.954, 0.971, 0.968, 0.967),
        (0.628, 0.661, 0.654, 0.657), (0.882, 0.888, 0.886, 0.898), (0.936, 0.931, 0.916, 0.931),
        (0.661, 0.668, 0.609, 0.685), (0.583, 0.583, 0.563, 0.625), (0.775, 0.838, 0.866, 0.875),
        (1.000, 1.000, 1.000, 1.000), (0.940, 0.962, 0.965, 0.962), (0.619, 0.666, 0.614, 0.669),
        (0.972, 0.981, 0.9751, 0.975), (0.957, 0.978, 0.946, 0.970),
    ],
    columns=["C4.5", "C4.5+m", "C4.5+cf", "C4.5+m+cf"],
)  # fmt: skip


def test_demsars_example():
    ranks = average_ranks(DEMSAR)
    assert ranks.round(3).to_dict() == {"C4.5+m+cf": 1.964, "C4.5+m": 2.0, "C4.5+cf": 2.893, "C4.5": 3.143}
    assert critical_difference(4, 14) == pytest.approx(1.25, abs=0.005)
    assert critical_difference(4, 14, alpha=0.10) == pytest.approx(1.12, abs=0.005)
    statistic = 12 * 14 / (4 * 5) * ((ranks**2).sum() - 4 * 5**2 / 4)
    assert statistic == pytest.approx(9.28, abs=0.01)
    ties = 1 - (3 * (2**3 - 2) + (4**3 - 4)) / (14 * (4**3 - 4))  # which scipy corrects for and Demšar does not
    assert friedman_test(DEMSAR) == pytest.approx(stats.chi2.sf(statistic / ties, 3))


def test_friedman_is_its_formula_without_ties():
    scores = pd.DataFrame(np.random.default_rng(0).normal(size=(9, 4)) + np.array([0, 0, 0.5, 1]))
    ranks = scores.rank(axis=1).mean()
    assert friedman_test(scores) == pytest.approx(stats.chi2.sf(12 * 9 / 20 * ((ranks - 2.5) ** 2).sum(), 3))


def test_nemenyi_rejects_exactly_beyond_the_critical_difference():
    for seed in range(2):
        scores = pd.DataFrame(
            np.random.default_rng(seed).normal(size=(8, 5)) + 0.7 * np.arange(5), columns=list("abcde")
        )
        ranks, p = average_ranks(scores)[list("abcde")], nemenyi_test(scores)
        apart = np.abs(ranks.to_numpy()[:, None] - ranks.to_numpy()) > critical_difference(5, 8)
        assert ((p.to_numpy() <= 0.05) == apart).all()
        assert list(p.columns) == list("abcde")


@pytest.mark.parametrize("methods", [3, 4, 8, 20, 50])
def test_three_tasks_are_enough_for_the_best_and_the_worst_to_differ(methods):
    assert critical_difference(methods, 3) < methods - 1 < critical_difference(methods, 2)


def test_wilcoxon_holm_is_scipy_times_holms_factor():
    scores = pd.DataFrame(np.random.default_rng(3).normal(size=(12, 3)) + np.array([0, 0.3, 2]), columns=list("abc"))
    raw = {pair: stats.wilcoxon(scores[pair[0]], scores[pair[1]]).pvalue for pair in ("ab", "ac", "bc")}
    found, ordered = wilcoxon_holm(scores), sorted(raw, key=raw.get)
    worst = 0.0
    for step, pair in enumerate(ordered):
        worst = max(worst, min(1.0, (3 - step) * raw[pair]))
        assert found.loc[pair[0], pair[1]] == found.loc[pair[1], pair[0]] == pytest.approx(worst)


def test_equal_methods_are_not_told_apart():
    scores = pd.DataFrame({"a": np.arange(6.0), "b": np.arange(6.0)})
    assert wilcoxon_holm(scores).loc["a", "b"] == 1.0
    assert friedman_test(scores.assign(c=scores["a"])) == 1.0


def test_refusals_name_what_is_missing():
    scores = pd.DataFrame(np.random.default_rng(0).normal(size=(5, 4)))
    with pytest.raises(ValueError, match="2 tasks are too few"):
        friedman_test(scores[:2])
    with pytest.raises(ValueError, match="2 methods are too few"):
        nemenyi_test(scores[[0, 1]])
    with pytest.raises(ValueError, match=r"5 tasks are too few for Wilcoxon.* 6 pairs .*at least 8 tasks"):
        wilcoxon_holm(scores)
    with pytest.raises(ValueError, match="every method on every task"):
        average_ranks(scores.mask(scores > 1))


def test_interquartile_mean_is_that_of_the_middle_half():
    values = np.random.default_rng(1).permutation(np.arange(20.0) ** 2)
    assert interquartile_mean(values) == pytest.approx((np.arange(5, 15) ** 2).mean())
    assert interquartile_mean([0.0, 0.8, 0.8, 0.8]) == pytest.approx(0.8)  # one collapse does not move it


def test_iqm_interval_has_the_width_of_the_seeds_not_of_the_tasks():
    rng = np.random.default_rng(2)
    noise = 0.01 * rng.normal(size=(3, 8))
    easy, hard = (dict(enumerate(noise + levels)) for levels in (np.zeros((3, 1)), np.array([[-0.3], [0.0], [0.3]])))
    assert iqm_interval(easy).high - iqm_interval(easy).low < 0.02
    found = iqm_interval(hard)
    assert found.n == 24
    assert found.low < found.estimate < found.high
    assert (found.low, found.high) == (iqm_interval(hard).low, iqm_interval(hard).high)


def test_iqm_interval_covers_with_five_seeds():
    rng = np.random.default_rng(3)
    runs = rng.normal(size=(200, 4, 5))
    hits = [0.0 in iqm_interval(dict(enumerate(each)), resamples=200) for each in runs]
    assert np.mean(hits) == pytest.approx(0.95, abs=0.04)


def test_iqm_refuses_what_it_cannot_resample():
    enough = [1.0, 2.0, 3.0, 4.0, 5.0]
    with pytest.raises(ValueError, match="4 runs of rte are too few: at least 5"):
        iqm_interval({"sst2": enough, "cola": enough, "rte": enough[:4]})
    with pytest.raises(ValueError, match="at least 3 tasks, there are 2"):
        iqm_interval({"sst2": enough, "cola": enough})


def test_the_least_runs_are_those_that_the_docs_name():
    text = (ROOT / "docs" / "statistics.md").read_text()
    assert (LEAST_TASKS, LEAST_RUNS) == (3, 5)
    assert "It needs three tasks and five seeds" in " ".join(text.split())
