import json
from pathlib import Path

import pyarrow.parquet
import pytest

from xlora_bench.data import synthetic
from xlora_bench.data.task import ROW_LENGTHS, TextTask

FOLDER = Path(__file__).resolve().parents[2] / "conf" / "task"
NAMES = sorted(path.stem for path in FOLDER.glob("[!_]*.yaml"))
GLUE = {"cola", "sst2", "mrpc", "stsb", "rte", "qnli", "qqp", "wnli", "mnli", "ax"}
HEADLINES = {"ax": "matthews", "cola": "matthews", "stsb": "pearson", "synth_pair_regression": "pearson"}


def test_every_task_has_its_file():
    assert GLUE | set(synthetic.GRAMMARS) <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_file_is_a_task_with_one_explicit_source(load_task, name):
    task = load_task(name)
    assert isinstance(task, TextTask)
    assert task.name == name
    assert (task.hub is None) == (name in synthetic.GRAMMARS)
    assert task.headline == HEADLINES.get(name, "accuracy")
    assert task.row_lengths == ROW_LENGTHS  # in the config, and so in the run's id


@pytest.mark.parametrize("name", sorted(GLUE))
def test_a_glue_task_is_one_configuration_of_one_hub_data_set(load_task, name):
    assert load_task(name).hub == ("nyu-mll/glue", name)


def test_tasks_with_two_metrics_or_two_splits(load_task):
    assert load_task("stsb").metrics == ("pearson", "spearman")
    assert load_task("mrpc").metrics == load_task("qqp").metrics == ("accuracy", "f1")
    assert load_task("mnli").eval_splits == ("validation_matched", "validation_mismatched")


@pytest.mark.parametrize("name", sorted(GLUE))
def test_columns_and_class_names_are_those_in_the_data(glue_dir, load_task, name):
    path = glue_dir / name / "train.parquet"
    if not path.is_file():
        pytest.skip(f"no {path}")
    task, schema = load_task(name), pyarrow.parquet.read_schema(path)
    features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    assert set(task.text_columns) == set(schema.names) - {"label", "idx"}
    names = features["label"].get("names")
    assert task.labels == (None if names is None else tuple(names))


def test_a_key_is_set_from_the_command_line(load_task):
    task = load_task("sst2", "max_train_rows=64", "max_length=32", "batch_size=8")
    assert (task.max_train_rows, task.max_length, task.batch_size) == (64, 32, 8)
