import re
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression

from xlora_bench.data import sources, synthetic

pytestmark = pytest.mark.slow

NAMES = ("synth_single", "synth_pair", "synth_pair_regression")
POLARITY = dict.fromkeys(f"{synthetic.GOOD} {synthetic.FOR}".split(), 1) | dict.fromkeys(
    f"{synthetic.BAD} {synthetic.AGAINST}".split(), -1
)


def texts(frame):
    return frame.drop(columns="label").agg(" ".join, axis=1)


def polarity(sentence):
    """Read one sentence by rule: the sign of its one loaded word, turned by a denial."""
    (sign,) = [POLARITY[word] for word in re.findall(r"\w+", sentence) if word in POLARITY]
    return -sign if re.search(r"\b(not|never|hardly|far from)\b", sentence) else sign


def ruled(name, row):
    signs = [polarity(sentence) for sentence in row]
    if name == "synth_single":
        return int(signs[0] > 0)
    if name == "synth_pair":
        return int(signs[0] == signs[1])
    return signs[0] + 1.5 * signs[1]


@pytest.mark.parametrize("name", NAMES)
def test_a_reader_of_the_rule_is_always_right(name):
    for split in synthetic.ROWS:
        frame = synthetic.read(name, split)
        rows = frame.drop(columns="label").itertuples(index=False)
        assert [ruled(name, row) for row in rows] == frame["label"].tolist()


@pytest.mark.parametrize("name", NAMES)
def test_a_bag_of_words_is_near_chance(name):
    train, validation = (synthetic.read(name, split) for split in ("train", "validation"))
    bag = CountVectorizer(ngram_range=(1, 1)).fit(texts(train))
    inputs = [bag.transform(texts(frame)) for frame in (train, validation)]
    if name == "synth_pair_regression":
        guess = LinearRegression().fit(inputs[0], train["label"]).predict(inputs[1])
        assert abs(np.corrcoef(guess, validation["label"])[0, 1]) < 0.2
    else:
        model = LogisticRegression(max_iter=1000).fit(inputs[0], train["label"])
        assert model.score(inputs[1], validation["label"]) < 0.6


@pytest.mark.parametrize("name", NAMES)
def test_labels_are_balanced_and_no_text_comes_twice(name):
    frames = [synthetic.read(name, split) for split in synthetic.ROWS]
    assert [len(frame) for frame in frames] == [2048, 512]
    for frame in frames:
        counts = Counter(frame["label"]).values()
        assert max(counts) - min(counts) <= 1
    assert texts(pd.concat(frames)).is_unique


@pytest.mark.parametrize("name", NAMES)
def test_the_columns_are_those_of_the_task_and_the_rows_never_change(name, load_task):
    task = load_task(name)
    rows = sources.read_task(task, data_dir=None)
    assert rows["train"].texts == tuple(synthetic.read(name, "train")[c].tolist() for c in task.text_columns)
    # A wanted change of words or grammar raises synthetic.VERSION and this digest.
    assert sources.fingerprint(rows).startswith(FINGERPRINTS[name])


def test_a_folder_does_not_replace_the_generator(load_task, tmp_path):
    task = load_task("synth_single")
    assert len(sources.read_rows(task, "train", data_dir=tmp_path)) == 2048


def test_a_split_that_is_not_generated_is_refused():
    with pytest.raises(ValueError, match="'synth_pair' has no split 'test': it has train, validation"):
        synthetic.read("synth_pair", "test")


FINGERPRINTS = {
    "synth_single": "c1ac2ddb2c74",
    "synth_pair": "37fb895640db",
    "synth_pair_regression": "6dfebf2152539e43",
}
