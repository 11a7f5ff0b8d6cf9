import time

import pandas as pd
import pytest

from xlora_bench.data import hub

NAME = ("nyu-mll/glue", "sst2")


def test_an_unreachable_hub_is_one_line_that_names_the_way_out_at_once(monkeypatch):
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # the discard port: nobody listens
    pytest.importorskip("datasets")  # its import is slow and not what is timed
    start = time.perf_counter()
    rule = r"nyu-mll/glue/sst2.*could not be reached.*paths\.data_dir=DIR"
    with pytest.raises(ValueError, match=rule) as caught:
        hub.read(NAME, "train")
    assert time.perf_counter() - start < 10
    assert "\n" not in str(caught.value)


def test_offline_mode_goes_to_the_local_copy_and_says_when_there_is_none(monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets, "load_dataset", raising(ConnectionError("offline mode")))
    with pytest.raises(ValueError, match=r"nyu-mll/glue/sst2.*'train'.*offline mode.*paths\.data_dir=DIR"):
        hub.read(NAME, "train")


def test_a_hub_data_set_arrives_as_a_table(monkeypatch):
    datasets = pytest.importorskip("datasets")
    table = pd.DataFrame({"sentence": ["good", "bad"], "label": [1, 0]})
    asked = []

    def load(*names, split):
        asked.append((names, split))
        return datasets.Dataset.from_pandas(table)

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets, "load_dataset", load)
    assert hub.read(NAME, "train").to_dict("list") == table.to_dict("list")
    assert asked == [(NAME, "train")]


def raising(error):
    def load(*names, split):
        raise error

    return load
