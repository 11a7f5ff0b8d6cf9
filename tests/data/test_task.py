import pytest


def test_num_labels_counts_classes_and_is_one_for_regression(make_task):
    assert make_task(labels=("a", "b", "c")).num_labels == 3
    score = make_task(labels=None, metrics=("pearson",), headline="pearson")
    assert score.num_labels == 1
    assert score.is_regression


def test_lists_of_a_config_become_tuples_so_that_a_task_is_hashable(make_task):
    task = make_task(text_columns=["sentence"], labels=["no", "yes"], row_lengths=[32, 64])
    assert hash(task) == hash(make_task(row_lengths=(32, 64)))


def test_row_limits_are_per_split(make_task):
    task = make_task(eval_splits=("a", "b"), max_train_rows=5, max_eval_rows=2)
    assert task.max_rows == {"train": 5, "a": 2, "b": 2}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text_columns": ()}, "text_columns.*one or two columns"),
        ({"text_columns": ("a", "b", "c")}, "text_columns.*one or two columns"),
        ({"text_columns": "sentence"}, "text_columns.*list .each entry: a text"),
        ({"text_columns": ("label",)}, "text_columns.*differ"),
        ({"name": "../sst2"}, r"^`task.name` \(='../sst2'\) must be a plain name"),
        ({"name": ".."}, "task.name.*plain name"),
        ({"name": "a\\b"}, "task.name.*plain name"),
        ({"train_split": "/etc/train"}, "task.train_split.*plain name"),
        ({"eval_splits": ("dev", "../x")}, "task.eval_splits.*plain name"),
        ({"eval_splits": ()}, "eval_splits.*at least one"),
        ({"eval_splits": ("train",)}, "eval_splits.*differ"),
        ({"labels": ("one",)}, "labels.*two or more"),
        ({"labels": ("a", "a")}, "labels.*two or more"),
        ({"labels": ("1", "0")}, "labels.*must equal its id"),
        ({"labels": (0, 1)}, "labels.*each entry: a text"),
        ({"metrics": ("bleu",)}, "metrics.*taken from.*classification"),
        ({"metrics": ()}, "metrics.*taken from"),
        ({"labels": None}, "metrics.*taken from.*regression"),
        ({"labels": ("a", "b", "c"), "metrics": ("f1",), "headline": "f1"}, "f1 only for 2 labels"),
        ({"headline": "f1"}, "headline.*'f1'.*one of the task's metrics"),
        ({"batch_size": 0}, r"task.batch_size` \(=0\).*at least 1"),
        ({"max_train_rows": -5}, "max_train_rows.*at least 1"),
        ({"max_eval_rows": 0}, "max_eval_rows.*at least 1"),
        ({"max_length": 1.5}, "max_length.*whole number"),
        ({"max_length": None}, "max_length.*whole number"),
        ({"layout": "square"}, "layout.*'square'.*auto"),
        ({"row_lengths": [64, 0]}, r"row_lengths` \(=\[64, 0\]\).*whole number"),
        ({"row_lengths": []}, "row_lengths.*a list that is not empty"),
        ({"row_lengths": None}, "row_lengths` .=None.*must be a list"),
        ({"row_lengths": 64}, "row_lengths` .=64.*must be a list"),
        ({"row_lengths": "64"}, "row_lengths` .='64'.*must be a list"),
    ],
)
def test_a_task_that_contradicts_itself_is_refused(make_task, changes, message):
    with pytest.raises(ValueError, match=message):
        make_task(**changes)
