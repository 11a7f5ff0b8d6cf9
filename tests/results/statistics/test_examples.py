import numpy as np
import pytest
from scipy import stats

from xlora_bench.data import metrics
from xlora_bench.data.task import TextTask
from xlora_bench.results.statistics.examples import (
    compare_by_example,
    mcnemar_over_seeds,
    mcnemar_test,
    resampled_scores,
)
from xlora_bench.results.statistics.resampled import draws, weighted_scores

pytestmark = pytest.mark.slow

RNG = np.random.default_rng(0)
N = 60
CLASSES = {"accuracy": 3, "matthews": 3, "f1": 2, "pearson": 1, "spearman": 1}


def example(metric):
    classes = CLASSES[metric]
    if classes == 1:
        labels = RNG.integers(0, 10, N) / 2  # ties
        logits = (labels + RNG.normal(size=N)).round(1)[:, None]
        return labels, logits, logits[:, 0]
    labels = RNG.integers(0, classes, N)
    logits = np.eye(classes)[labels] + 0.7 * RNG.normal(size=(N, classes))
    return labels, logits, logits.argmax(axis=1)


def scored(metric, logits, labels):
    classes = CLASSES[metric]
    names = None if classes == 1 else tuple(map(str, range(classes)))
    task = TextTask(name="t", text_columns=("text",), labels=names, metrics=(metric,), headline=metric)
    return metrics.compute(task, logits, labels)[metric]


@pytest.mark.parametrize("metric", CLASSES)
def test_a_resample_scores_as_its_rows_repeated(metric):
    labels, logits, predictions = example(metric)
    (counts,) = draws(N, resamples=20)
    expected = []
    for row in counts.astype(int):
        rows = np.repeat(np.arange(N), row)
        expected.append(scored(metric, logits[rows], labels[rows]))
    runs = np.stack([labels, predictions])
    assert weighted_scores(metric, runs, labels, counts)[1] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("metric", CLASSES)
def test_an_undefined_metric_is_zero_as_in_training(metric):
    labels, logits, _ = example(metric)
    same = np.zeros_like(logits)
    found = weighted_scores(metric, np.zeros((1, N)), labels, np.ones((1, N)))[0, 0]
    assert found == pytest.approx(scored(metric, same, labels), abs=1e-12)


def test_draws_are_of_n_examples_and_the_same_every_time():
    blocks = list(draws(50, resamples=300, seed=3))
    counts = np.concatenate(blocks)
    assert counts.shape == (300, 50)
    assert (counts.sum(axis=1) == 50).all()
    assert counts.mean() == 1
    assert counts.var() == pytest.approx(1 - 1 / 50, abs=0.05)
    assert (np.concatenate(list(draws(50, resamples=300, seed=3))) == counts).all()


def test_large_sets_come_in_blocks(monkeypatch):
    monkeypatch.setattr("xlora_bench.results.statistics.resampled.CHUNK", 100)
    assert [len(block) for block in draws(40, resamples=5)] == [2, 2, 1]


def test_mcnemar_is_the_binomial_test_of_the_disagreements():
    labels = np.zeros(40, dtype=int)
    first, second = labels.copy(), labels.copy()
    first[:3], second[3:14] = 1, 1  # 3 examples only second has right, 11 only first
    assert mcnemar_test(first, second, labels) == pytest.approx(stats.binomtest(3, 14).pvalue)
    assert mcnemar_test(first, first, labels) == 1.0


def test_mcnemar_over_seeds_is_twice_the_median():
    labels = np.zeros(40, dtype=int)
    first = np.zeros((3, 40), dtype=int)
    second = first.copy()
    for row, wrong in enumerate((2, 9, 12)):
        second[row, :wrong] = 1
    p = [stats.binomtest(0, wrong).pvalue for wrong in (2, 9, 12)]
    assert mcnemar_over_seeds(first, second, labels) == pytest.approx(2 * p[1])
    assert mcnemar_over_seeds(first[:1], second[:1], labels) == pytest.approx(p[0])
    assert mcnemar_over_seeds(first, first, labels) == 1.0


def crossed(seeds, examples, *, seed_sd, example_sd, noise, mean=0.0):
    """Continuous 'scores' per example whose mean is the metric: accuracy without its rounding."""
    return (
        mean
        + seed_sd * RNG.normal(size=(seeds, 1))
        + example_sd * RNG.normal(size=examples)
        + noise * RNG.normal(size=(seeds, examples))
    )


def resampled_means(values, resamples=400):
    counts = np.concatenate([np.ones((1, values.shape[1])), *draws(values.shape[1], resamples=resamples)])
    return values @ counts.T / values.shape[1]


def test_one_seed_gives_the_paired_bootstrap_over_examples_only():
    labels = RNG.integers(0, 2, 400)
    runs = np.stack([np.where(RNG.random(400) < share, labels, 1 - labels) for share in (0.9, 0.8)])
    scores = resampled_scores("accuracy", runs, labels, resamples=2000)
    found = compare_by_example(scores[:1], scores[1:], examples=400)
    each = (runs[0] == labels).astype(float) - (runs[1] == labels)
    half = 1.96 * each.std() / 20
    assert found.these_runs.estimate == pytest.approx(each.mean())
    assert found.these_runs.high - found.these_runs.low == pytest.approx(2 * half, rel=0.08)
    assert found.seeds_and_examples is None
    assert found.p is None


def test_seeds_and_examples_estimates_the_variance_of_both():
    found = []
    for _ in range(200):
        scores = resampled_means(crossed(8, 100, seed_sd=0.2, example_sd=1.0, noise=1.0), resamples=200)
        both = compare_by_example(scores, np.zeros_like(scores), examples=100).seeds_and_examples
        found.append(((both.high - both.low) / 2 / 2.1) ** 2)  # about t_{15}
    truth = 0.2**2 / 8 + 1.0 / 100 + 1.0 / 800
    assert np.mean(found) == pytest.approx(truth, rel=0.15)


def test_seeds_and_examples_covers_where_the_runs_alone_do_not():
    hits = []
    for _ in range(120):
        scores = resampled_means(crossed(5, 200, seed_sd=0.3, example_sd=0.5, noise=1.0), resamples=200)
        result = compare_by_example(scores, np.zeros_like(scores), examples=200)
        hits.append((0.0 in result.seeds_and_examples, 0.0 in result.these_runs, result.p > 0.05))
    crossed_hits, runs_hits, p_hits = np.mean(hits, axis=0)
    assert 0.90 <= crossed_hits <= 0.99
    assert crossed_hits == p_hits
    assert runs_hits < 0.7


def test_equal_runs_differ_by_nothing():
    labels = RNG.integers(0, 2, 30)
    scores = resampled_scores("matthews", np.stack([labels, labels]), labels, resamples=50)
    found = compare_by_example(scores, scores, examples=30)
    assert (found.seeds_and_examples.low, found.seeds_and_examples.high, found.p) == (0.0, 0.0, 1.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mcnemar_test(np.zeros(3), np.zeros(4), np.zeros(3)), "the same examples"),
        (lambda: mcnemar_over_seeds(np.zeros((2, 3)), np.zeros((2, 3)), np.zeros(4)), "the same examples"),
        (lambda: resampled_scores("accuracy", np.zeros((2, 0)), np.zeros(0)), "the same examples"),
        (lambda: resampled_scores("bleu", np.zeros((1, 3)), np.zeros(3)), r"metric \(='bleu'\) must be one of"),
        (lambda: compare_by_example(np.zeros((2, 9)), np.zeros((3, 9)), examples=5), "must be equal"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
