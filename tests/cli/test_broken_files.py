"""Commands that read results: a broken file is named and left out, and the other runs keep their table."""

import json
import shutil

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from tests.helpers.records import grid
from xlora_bench.cli import archive, compare, diff, retry, status, table, verify

pytestmark = pytest.mark.slow

WHOLE, BROKEN = f"{0:016x}", f"{3:016x}"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A results folder of four runs, with predictions and adapters."""
    folder = tmp_path_factory.mktemp("whole")
    runs = [{"adapter": adapter, "seed": seed} for adapter in ("lora", "dora") for seed in (0, 1)]
    grid(folder, runs)
    predictions = pd.DataFrame(
        {
            "epoch": [1, 1, 2, 2],
            "split": "validation",
            "idx": [0, 1, 0, 1],
            "label": [0, 1, 0, 1],
            "prediction": [0, 0, 0, 0],
            "logit_0": [0.5] * 4,
            "logit_1": [0.25] * 4,
        }
    )
    for number in range(len(runs)):
        run = folder / "runs" / f"{number:016x}"
        predictions.to_parquet(run / "predictions.parquet", index=False)
        save_file({"lora_A": torch.ones(2)}, run / "adapter.safetensors")
    return folder


@pytest.fixture
def results(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "results")


def commands(results):
    """Every command that reads recorded runs, on `results` and on its broken run."""
    here, broken = str(results), str(results / "runs" / BROKEN)
    return {
        "table": lambda: table.main([here]),
        "status": lambda: status.main([here]),
        "retry": lambda: retry.main([here]),
        "compare": lambda: compare.main([here]),
        "diff": lambda: diff.main([str(results / "runs" / WHOLE), broken]),
        "verify": lambda: verify.main([here, "--runs", BROKEN]),
        "archive": lambda: archive.main([str(results / "reports" / "all"), str(results / "archive.jsonl.gz")]),
    }


DEEP = "[" * 900 + "]" * 900
"""Nested less deeply than `json` refuses."""
CHANGES = {
    "seed is a list": {"seed": [0]},
    "seed is a text": {"seed": "0"},
    "seed is true": {"seed": True},
    "run id is null": {"run_id": None},
    "status is a list": {"status": ["completed"]},
    "score is a text": {"metrics": {"headline": "accuracy", "best": {"accuracy": "x"}, "last": {"accuracy": 0.5}}},
    "score is true": {"metrics": {"headline": "accuracy", "best": {"accuracy": True}, "last": {"accuracy": 0.5}}},
    "score is beyond every number": {
        "metrics": {"headline": "accuracy", "best": {"accuracy": 10**400}, "last": {"accuracy": 0.5}}
    },
    "best is a list": {"metrics": {"headline": "accuracy", "best": [1], "last": {"accuracy": 0.5}}},
    "headline is a list": {"metrics": {"headline": ["accuracy"], "best": {}, "last": {}}},
    "history is a number": {"metrics": {"history": 3, "headline": "a", "best": {"a": 1.0}, "last": {"a": 1.0}}},
    "history has a text": {"metrics": {"history": ["x"], "headline": "a", "best": {"a": 1.0}, "last": {"a": 1.0}}},
    "metrics is null": {"metrics": None},
    "config is a list": {"config": []},
    "config is null": {"config": None},
    "model is a text": {"config": {"model": "minilm", "adapter": "lora"}},
    "choices hold a list": {"choices": {"adapter": ["lora"]}},
    "a version is a mapping": {"versions": {"torch": {"a": 1}}},
    "a hash is a list": {"hashes": {"data": [1], "parent": [2]}},
    "a cost is a list": {"cost": {"train_seconds": [1]}},
    "started is a number": {"started": 3},
    "finished is null": {"finished": None},
    "reason is a list": {"reason": [1]},
    "schema is a text": {"schema": "2"},
    "schema is true": {"schema": True},
    "config is deep": {"config": {"deep": json.loads(DEEP)}},
    "a rank is a list": {"ranks": {"query": [1]}},
}


def check_all(results, capsys):
    """Run every command: none raises, and each still knows the whole runs."""
    printed = {}
    for name, command in commands(results).items():
        code = command()
        output = capsys.readouterr()
        assert code in (0, 1, 2), name
        assert all(line.startswith("error: ") for line in output.err.splitlines() if name != "status"), output.err
        printed[name] = output.out
    assert "lora" in printed["table"]
    return printed


@pytest.mark.parametrize("case", CHANGES)
def test_a_broken_record_is_left_out(case, results, capsys, caplog):
    path = results / "runs" / BROKEN / "record.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **CHANGES[case]}))
    check_all(results, capsys)
    assert str(path) in caplog.text


NO_RECORDS = ["", "{", "null", "[]", "3", DEEP, "[" * 100_000, "\x00\x01"]


@pytest.mark.parametrize(
    "text", NO_RECORDS, ids=["empty", "cut", "null", "list", "number", "deep", "too deep", "binary"]
)
def test_a_file_that_is_no_record_is_left_out(text, results, capsys, caplog):
    path = results / "runs" / BROKEN / "record.json"
    path.write_text(text)
    check_all(results, capsys)
    assert str(path) in caplog.text


@pytest.mark.parametrize("name", ["predictions.parquet", "adapter.safetensors"])
@pytest.mark.parametrize("damage", ["empty", "cut", "noise"])
def test_a_damaged_part_is_named(name, damage, results, capsys):
    path = results / "runs" / BROKEN / name
    content = path.read_bytes()
    path.write_bytes({"empty": b"", "cut": content[: len(content) // 2], "noise": b"\xff" * 64}[damage])
    check_all(results, capsys)
    assert diff.main([str(results / "runs" / WHOLE), str(path.parent)]) == 1
    assert str(path) in capsys.readouterr().err


@pytest.mark.parametrize("column", ["epoch", "split", "idx", "label", "prediction", "logit_0"])
def test_predictions_without_a_column_are_named(column, results, capsys):
    path = results / "runs" / BROKEN / "predictions.parquet"
    pd.read_parquet(path).drop(columns=column).to_parquet(path, index=False)
    check_all(results, capsys)


@pytest.mark.parametrize("name", ["../config", "/etc/passwd", "a/../b", "", ".", "_glue"])
def test_a_paper_is_named_not_a_path(name, results, capsys):
    assert table.main([str(results), "--paper", name]) == 1
    assert "is not one of the papers" in capsys.readouterr().err
