import numpy as np
import pytest

from xlora_bench.results.statistics import describe_significance, significant_from_rest

pytestmark = pytest.mark.slow

RNG = np.random.default_rng(0)


def runs(mean, *, n=6, spread=0.001):
    return {seed: mean + spread * noise for seed, noise in enumerate(RNG.normal(size=n))}


def test_the_best_of_eight_stands_out_with_six_seeds():
    scores = {f"m{i}": runs(0.8 - 0.01 * i) for i in range(8)}
    assert significant_from_rest(scores) == "m0"
    assert describe_significance(scores) == "m0 is significantly better than every other method (largest p = 0.0312)."


def test_five_seeds_are_never_enough_and_the_sentence_says_so():
    scores = {"lora": runs(0.5, n=5), "full": runs(0.9, n=5)}
    assert significant_from_rest(scores) is None
    assert describe_significance(scores) == (
        "full has the highest mean, but cannot be significantly better than all others: 5 seeds are shared with lora, "
        "which cannot reach p <= 0.05 in an exact paired test (at best 0.0625); 6 are needed."
    )


def test_one_close_rival_is_enough_for_none():
    best = runs(0.9)
    scores = {"best": best, "rival": best | {5: best[5] + 0.01}, "last": runs(0.1)}
    scores["best"] = {seed: score + 0.002 for seed, score in best.items()}
    assert significant_from_rest(scores) is None
    assert describe_significance(scores) == "best has the highest mean but is not significantly better than rival."


def test_seeds_count_only_where_both_are_done():
    scores = {"a": runs(0.9, n=10), "b": {seed + 5: score for seed, score in runs(0.1, n=10).items()}}
    assert significant_from_rest(scores) is None
    assert "5 seeds are shared with b" in describe_significance(scores)
    scores["b"] = {seed + 100: score for seed, score in runs(0.1).items()}
    assert significant_from_rest(scores) is None
    assert "no seed is shared with b" in describe_significance(scores)


def test_a_higher_mean_only_from_other_seeds_does_not_stand_out():
    scores = {"a": dict.fromkeys(range(6), 0.5) | {9: 5.0}, "b": dict.fromkeys(range(6), 0.6)}
    assert significant_from_rest(scores) is None
    assert "not significantly better than b" in describe_significance(scores)


def test_methods_without_a_done_run_are_passed_over_and_named():
    scores = {("lora", "kaiming"): runs(0.9), ("lu", None): runs(0.1), ("vera", None): {}}
    assert significant_from_rest(scores) == ("lora", "kaiming")
    assert describe_significance(scores).startswith(
        "lora · kaiming is significantly better than every other method, except vera without a completed run"
    )


@pytest.mark.parametrize("scores", [{}, {"a": {0: 1.0}}, {"a": {0: 1.0}, "b": {}}])
def test_fewer_than_two_methods(scores):
    assert significant_from_rest(scores) is None
    assert (
        describe_significance(scores)
        == "No method is significantly better: fewer than two methods have a completed run."
    )


def test_a_score_that_is_no_number_is_named():
    with pytest.raises(ValueError, match="must be finite"):
        significant_from_rest({"a": {0: float("nan")}, "b": {0: 1.0}})


def test_two_equal_methods_ahead_are_told_apart_in_at_most_five_percent():
    rng = np.random.default_rng(2)
    named = []
    for _ in range(300):
        columns = rng.normal(size=(4, 7)) - np.array([0, 0, 9, 9])[:, None]
        named.append(
            significant_from_rest({i: dict(enumerate(column)) for i, column in enumerate(columns)}) is not None
        )
    assert 0 < np.mean(named) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 300)
