"""W&B and csv loggers: names, groups, and a run that goes on without W&B."""

import logging
import sys

import pytest
from lightning.pytorch.loggers import CSVLogger

from xlora_bench.runs.run import Run
from xlora_bench.training.loggers import RunLabels, WandbLogs, flatten
from xlora_bench.training.prepare import run_labels

pytestmark = pytest.mark.slow

LABELS = RunLabels(run_id="c", group="g", config_label="p", name="n", tags=("t",), config={})


@pytest.mark.parametrize("module", [None, type(sys)("wandb")], ids=["absent", "failing"])
def test_a_run_goes_on_without_wandb(module, tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "wandb", module)
    with caplog.at_level(logging.WARNING):
        logger = WandbLogs().open(tmp_path, LABELS)
    assert isinstance(logger, CSVLogger)
    assert "W&B is not available" in caplog.text
    WandbLogs().close(logger, {})


@pytest.mark.parametrize(("by", "group"), [("sweep", "g"), ("config", "p")])
def test_runs_are_grouped_by_sweep_or_by_place_of_the_table(by, group, tmp_path, monkeypatch):
    options_seen = {}
    module = type(sys)("wandb")
    module.init = lambda **options: options_seen.update(options)
    module.Settings = dict
    monkeypatch.setitem(sys.modules, "wandb", module)
    WandbLogs(group=by).open(tmp_path, LABELS)
    assert options_seen["group"] == group
    with pytest.raises(ValueError, match=r"`logger.group` \(='seed'\) must be 'sweep' or 'config'"):
        WandbLogs(group="seed")


def test_the_seeds_of_one_config_share_their_label(tmp_path):
    choices = dict.fromkeys(("model", "task", "adapter", "init_scheme"), "x")
    configs = [{"seed": seed, "adapter": {"rank": 2}, "optimizer": {"lr": lr}} for seed, lr in ((0, 1), (1, 1), (0, 2))]
    runs = [Run.of(one, choices=choices, data="d", results_dir=tmp_path) for one in configs]
    first, other_seed, other_rate = (run_labels(one) for one in runs)
    assert first.config_label == other_seed.config_label != other_rate.config_label
    assert first.name != other_seed.name


def test_nested_keys_are_flattened_by_dots():
    assert flatten({"a": {"b": 1, "c": {}}, "d": [2]}) == {"a.b": 1, "a.c": {}, "d": [2]}
