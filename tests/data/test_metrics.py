import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as reference

from xlora_bench.data import metrics

RANDOM = np.random.default_rng(3)
LABELS = RANDOM.integers(0, 2, 200)
LOGITS = RANDOM.normal(size=(200, 2)) + np.eye(2)[LABELS]
SCORES = RANDOM.uniform(0, 5, 200).round(1)


@pytest.fixture
def binary(make_task):
    return make_task(metrics=("accuracy", "f1", "matthews"))


@pytest.fixture
def regression(make_task):
    return make_task(labels=None, metrics=("pearson", "spearman"), headline="pearson")


def test_classification_metrics_equal_sklearn(binary):
    chosen = LOGITS.argmax(1)
    assert metrics.compute(binary, LOGITS, LABELS) == pytest.approx(
        {
            "accuracy": reference.accuracy_score(LABELS, chosen),
            "f1": reference.f1_score(LABELS, chosen),
            "matthews": reference.matthews_corrcoef(LABELS, chosen),
            "collapsed": 0.0,
        }
    )


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_matthews_has_the_bits_of_sklearn(make_task, classes):
    task = make_task(labels=tuple("abcde"[:classes]), metrics=("matthews",), headline="matthews")
    for rows in (1, 2, 7, 300, 5001):
        labels, logits = RANDOM.integers(0, classes, rows), RANDOM.normal(size=(rows, classes))
        expected = reference.matthews_corrcoef(labels, logits.argmax(1)) if rows > 1 else 0.0
        assert metrics.compute(task, logits, labels)["matthews"] == expected


@pytest.mark.parametrize("shape", [(200,), (200, 1)])
def test_regression_metrics_equal_scipy(regression, shape):
    guess = SCORES + RANDOM.normal(size=200)
    assert metrics.compute(regression, guess.reshape(shape), SCORES) == pytest.approx(
        {
            "pearson": stats.pearsonr(guess, SCORES).statistic,
            "spearman": stats.spearmanr(guess, SCORES).statistic,
            "collapsed": 0.0,
        }
    )


def test_f1_counts_class_1_as_positive(make_task):
    task = make_task(metrics=("f1",), headline="f1")
    logits = np.eye(2)[[1, 1, 1, 0]]  # one true positive, two false positives, no false negative
    assert metrics.compute(task, logits, np.array([1, 0, 0, 0]))["f1"] == pytest.approx(2 * 1 / (2 * 1 + 2))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("always", "accuracy", "f1"), [(0, 0.25, 0.0), (1, 0.75, 2 * 0.75 / 1.75)])
def test_a_constant_class_is_a_collapse_with_matthews_0(binary, always, accuracy, f1):
    logits = np.tile(np.eye(2)[always], (4, 1))
    expected = {"accuracy": accuracy, "f1": f1, "matthews": 0.0, "collapsed": 1.0}
    assert metrics.compute(binary, logits, np.array([1, 1, 1, 0])) == pytest.approx(expected)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("noise", [0.0, 1e-7])
def test_a_constant_score_is_a_collapse_with_correlation_0(regression, noise):
    guess = 2.5 + noise * RANDOM.normal(size=200)
    expected = {"pearson": 0.0, "spearman": 0.0, "collapsed": 1.0}
    assert metrics.compute(regression, guess, SCORES) == expected


@pytest.mark.filterwarnings("error")
def test_constant_labels_leave_correlations_undefined_without_a_collapse(regression):
    expected = {"pearson": 0.0, "spearman": 0.0, "collapsed": 0.0}
    assert metrics.compute(regression, np.arange(3.0), np.ones(3)) == expected


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_not_finite_are_a_collapse_with_all_metrics_0(binary, regression, bad):
    logits = LOGITS.copy()
    logits[5, 1] = bad
    assert metrics.compute(binary, logits, LABELS) == {"accuracy": 0, "f1": 0, "matthews": 0, "collapsed": 1}
    assert metrics.compute(regression, logits[:, 1], SCORES) == {"pearson": 0, "spearman": 0, "collapsed": 1}


def test_lengths_must_agree(binary):
    with pytest.raises(ValueError, match="200 predictions for 199 labels of task 'toy'"):
        metrics.compute(binary, LOGITS, LABELS[1:])


def test_merge_prefixes_all_but_the_main_split(make_task):
    task = make_task(eval_splits=("matched", "mismatched"))
    good, bad = {"accuracy": 0.7, "collapsed": 0.0}, {"accuracy": 0.5, "collapsed": 1.0}
    assert metrics.merge(task, {"mismatched": bad, "matched": good}) == {
        "accuracy": 0.7, "collapsed": 1.0, "mismatched/accuracy": 0.5, "mismatched/collapsed": 1.0,
    }  # fmt: skip


def test_pearson_has_the_bits_of_scipy(regression):
    rng = np.random.default_rng(0)
    for n in (2, 3, 8, 277, 1500):
        for scale in (1.0, 1e200):
            guess, labels = scale * rng.normal(size=n), rng.normal(size=n)
            expected = stats.pearsonr(guess, labels).statistic
            assert metrics.compute(regression, guess, labels)["pearson"] == expected
