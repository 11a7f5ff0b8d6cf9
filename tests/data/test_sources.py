import os
import shutil

import numpy as np
import pandas as pd
import pytest

from xlora_bench.data import sources


def read(task, folder, split="train"):
    return sources.read_rows(task, split, data_dir=folder)


def test_rows_hold_texts_labels_and_places(make_task, toy_dir, frame):
    rows = read(make_task(), toy_dir)
    assert rows.texts == (frame["sentence"].tolist(),)
    assert rows.labels.tolist() == frame["label"].tolist()
    assert rows.idx.tolist() == list(range(len(frame)))


def test_fingerprint_ignores_path_time_and_format(make_task, toy_dir, frame, tmp_path):
    task, seen = make_task(), set()
    seen.add(read(task, toy_dir).fingerprint)
    moved = shutil.copytree(toy_dir, tmp_path / "elsewhere")
    os.utime(moved / "toy" / "train.parquet", (0, 0))
    seen.add(read(task, moved).fingerprint)
    for suffix, write in {
        "csv": lambda path: frame.to_csv(path, index=False),
        "tsv": lambda path: frame.to_csv(path, index=False, sep="\t"),
        "jsonl": lambda path: frame.to_json(path, orient="records", lines=True),
    }.items():
        (tmp_path / suffix / "toy").mkdir(parents=True)
        write(tmp_path / suffix / "toy" / f"train.{suffix}")
        seen.add(read(task, tmp_path / suffix).fingerprint)
    assert len(seen) == 1


def test_regression_fingerprints_agree_between_formats(make_task, write_splits, frame, tmp_path):
    task = make_task(labels=None, metrics=("pearson",), headline="pearson")
    scores = frame.assign(label=pd.Series([0.1, 3.2, 1 / 3, 5, 4.75, 2.2, 0], dtype="float32"))
    folder = write_splits("toy", train=scores)
    (tmp_path / "csv" / "toy").mkdir(parents=True)
    scores.to_csv(tmp_path / "csv" / "toy" / "train.csv", index=False)
    rows = read(task, folder)
    assert rows.labels.dtype == "float32"
    assert rows.fingerprint == read(task, tmp_path / "csv").fingerprint


@pytest.mark.parametrize("change", ["text", "label", "order", "boundary"])
def test_fingerprint_sees_every_change_of_content(make_task, write_splits, frame, toy_dir, change):
    before = read(make_task(), toy_dir).fingerprint
    if change == "text":
        frame.loc[3, "sentence"] = "Bad"
    elif change == "label":
        frame.loc[3, "label"] = 1
    elif change == "order":
        frame = frame.iloc[[1, 0, 2, 3, 4, 5, 6]]
    else:  # the same characters in the same order, cut elsewhere
        frame.loc[2, "sentence"], frame.loc[3, "sentence"] = "a cold sou", "pbad"
    assert read(make_task(), write_splits("toy", train=frame)).fingerprint != before


def test_the_fingerprint_of_a_task_covers_every_split(make_task, write_splits, frame, toy_dir):
    before = sources.fingerprint(sources.read_task(make_task(), data_dir=toy_dir))
    write_splits("toy", validation=frame)
    assert sources.fingerprint(sources.read_task(make_task(), data_dir=toy_dir)) != before


@pytest.mark.parametrize("hidden", [-1, -1.0, "-1", None])
def test_labels_may_be_hidden_where_that_is_allowed(make_task, write_splits, frame, hidden):
    for rows in (frame.assign(label=hidden), frame.drop(columns="label")):
        folder = write_splits("toy", train=rows)
        numbers = sources.read_rows(make_task(), "train", data_dir=folder, may_lack_labels=True).labels
        assert numbers.tolist() == [-1] * len(frame)
        score = make_task(labels=None, metrics=("pearson",), headline="pearson")
        assert np.isnan(sources.read_rows(score, "train", data_dir=folder, may_lack_labels=True).labels).all()
        with pytest.raises(ValueError, match="label"):
            read(make_task(), folder)
    some = [hidden, *frame["label"].astype(type(hidden) if hidden else object)[1:]]
    folder = write_splits("toy", train=frame.assign(label=some))
    with pytest.raises(ValueError, match="unknown label"):
        sources.read_rows(make_task(), "train", data_dir=folder, may_lack_labels=True)


def test_labels_may_be_ids_names_or_whole_floats(make_task, write_splits, frame):
    expected = frame["label"].tolist()
    names = frame["label"].map({0: "no", 1: "yes"})
    for labels in (frame["label"], names, frame["label"].astype(float), frame["label"].astype(str)):
        folder = write_splits("toy", train=frame.assign(label=labels))
        assert read(make_task(), folder).labels.tolist() == expected


def test_a_row_limit_takes_a_fixed_random_subset_that_keeps_its_places(make_task, write_splits):
    many = pd.DataFrame({"sentence": [f"row {i}" for i in range(200)], "label": [0, 1] * 100})
    folder = write_splits("toy", train=many, validation=many)
    whole, cut = read(make_task(), folder), read(make_task(max_train_rows=50), folder)
    assert len(cut) == len(set(cut.idx.tolist())) == 50
    assert cut.idx.tolist() == sorted(cut.idx.tolist())
    assert cut.idx.tolist() != list(range(50))
    assert cut.texts[0] == [whole.texts[0][i] for i in cut.idx]
    assert cut.labels.tolist() == whole.labels[cut.idx].tolist()
    assert read(make_task(max_train_rows=50), folder).fingerprint == cut.fingerprint != whole.fingerprint
    assert len(read(make_task(max_train_rows=1000), folder)) == 200
    assert len(read(make_task(max_train_rows=50), folder, "validation")) == 200
    assert len(read(make_task(max_eval_rows=20), folder, "validation")) == 20


def test_pair_and_two_eval_splits_as_in_mnli(make_task, write_splits):
    pairs = pd.DataFrame({"premise": ["a", "b", "c"], "hypothesis": ["d", "e", "f"], "label": [2, 1, 0]})
    labels = ("entailment", "neutral", "contradiction")
    splits = ("validation_matched", "validation_mismatched")
    task = make_task(name="mnli", text_columns=("premise", "hypothesis"), labels=labels, eval_splits=splits)
    folder = write_splits("mnli", train=pairs, validation_matched=pairs[:2], validation_mismatched=pairs[1:])
    rows = sources.read_task(task, data_dir=folder)
    assert {split: len(part) for split, part in rows.items()} == {"train": 3, splits[0]: 2, splits[1]: 2}
    assert rows["train"].texts == (["a", "b", "c"], ["d", "e", "f"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"label": [1, 0, 7, 0, 1, 0, 0]},
            r"unknown label 7 in row 2 of .*train\.parquet: must be one of 0 \(no\), 1 \(yes\)",
        ),
        ({"label": [1, 0, 1, -1, 1, 0, 0]}, "unknown label -1 in row 3"),
        ({"label": [1, 0, 1, 0, None, 0, 0]}, "unknown label nan in row 4"),
        ({"label": ["yes", "no", "maybe", "no", "no", "no", "no"]}, "unknown label 'maybe' in row 2"),
        ({"label": [1, 0, 0.5, 0, 1, 0, 0]}, "unknown label 0.5 in row 2"),
        ({"sentence": ["a", "b", None, "d", "e", "f", "g"]}, r"column 'sentence', row 2 .*must be a text"),
        ({"sentence": ["a", " ", "c", "d", "e", "f", "g"]}, r"row 1 .*is empty"),
        ({"sentence": [1, 2, 3, 4, 5, 6, 7]}, r"column 'sentence', row 0 .* is 1: must be a text"),
    ],
)
def test_bad_rows_are_named(make_task, write_splits, frame, change, message):
    folder = write_splits("toy", train=frame.assign(**change))
    with pytest.raises(ValueError, match=message):
        read(make_task(), folder)


@pytest.mark.parametrize("value", ["high", float("nan"), float("inf"), None, 1e300])
def test_a_score_must_be_a_finite_number(make_task, write_splits, frame, value):
    task = make_task(labels=None, metrics=("pearson",), headline="pearson")
    folder = write_splits("toy", train=frame.assign(label=[str(value)] * len(frame)))
    with pytest.raises(ValueError, match=r"row 0 .*must be a finite number"):
        read(task, folder)


def test_a_missing_column_is_named_with_the_columns_found(make_task, toy_dir, write_splits, frame):
    with pytest.raises(ValueError, match=r"column 'question' is missing in .*columns found: sentence, label"):
        read(make_task(text_columns=("question",)), toy_dir)
    folder = write_splits("toy", train=frame.rename(columns={"label": "gold"}))
    with pytest.raises(ValueError, match=r"column 'label' is missing in .*columns found: sentence, gold"):
        read(make_task(), folder)


def test_an_empty_table_is_refused(make_task, write_splits, frame):
    with pytest.raises(ValueError, match="no rows in"):
        read(make_task(), write_splits("toy", train=frame[:0]))


def test_one_empty_side_of_a_pair_is_allowed(make_task, write_splits):
    pairs = pd.DataFrame({"a": ["x", ""], "b": ["", "y"], "label": [0, 1]})
    task = make_task(text_columns=("a", "b"))
    assert len(read(task, write_splits("toy", train=pairs))) == 2
    with pytest.raises(ValueError, match=r"row 1 .*is empty"):
        read(task, write_splits("toy", train=pairs.assign(a=["x", ""], b=["", ""])))


def test_a_folder_that_is_not_there_is_named(make_task, tmp_path):
    with pytest.raises(ValueError, match=r"data_dir.*nowhere/toy/train\.parquet"):
        read(make_task(), tmp_path / "nowhere")


def test_a_task_without_hub_asks_for_a_folder(make_task):
    with pytest.raises(ValueError, match=r"'toy' has no `task.hub`.*paths\.data_dir=DIR"):
        read(make_task(), None)


OFFICIAL_ROWS = {
    "cola": (8551, 1043),
    "sst2": (67349, 872),
    "mrpc": (3668, 408),
    "stsb": (5749, 1500),
    "rte": (2490, 277),
}


@pytest.mark.parametrize("name", [*OFFICIAL_ROWS, "qnli", "qqp"])
def test_real_glue_files_are_read_whole(glue_dir, load_task, name):
    if not (glue_dir / name).is_dir():
        pytest.skip(f"no {name} in {glue_dir}")
    rows = sources.read_task(load_task(name), data_dir=glue_dir)
    if name in OFFICIAL_ROWS:
        assert (len(rows["train"]), len(rows["validation"])) == OFFICIAL_ROWS[name]
    frame = pd.read_parquet(glue_dir / name / "validation.parquet")
    assert rows["validation"].labels.tolist() == frame["label"].tolist()


def test_held_out_rows_are_evaluated_and_not_trained_on(make_task):
    def rows(**changes):
        return sources.read_task(
            make_task(name="synth_single", labels=("negative", "positive"), **changes), data_dir=None
        )

    held, plain = rows(holdout=100, max_train_rows=300), rows(max_train_rows=300)
    assert {name: len(part) for name, part in held.items()} == {"train": 300, "holdout": 100}
    assert not set(held["train"].idx) & set(held["holdout"].idx)
    assert set(held["train"].idx) == set(plain["train"].idx)
    whole = rows()["train"]
    assert held["holdout"].texts[0] == [whole.texts[0][place] for place in held["holdout"].idx]
    assert len(rows(holdout=100)["train"]) == len(whole) - 100


def test_holding_out_everything_is_refused(make_task, toy_dir, frame):
    with pytest.raises(ValueError, match=rf"`task.holdout` \(={len(frame)}\) must leave some of the {len(frame)}"):
        sources.read_task(make_task(holdout=len(frame)), data_dir=toy_dir)
