"""Configs of runs as plain values."""

from omegaconf import OmegaConf

from xlora_bench.runs.plain_config import plain_config


def test_a_rule_with_an_interpolation_may_stand_beside_a_method_without_that_key():
    rules = "[{when: {adapter: lora}, set: {adapter.alpha: '${adapter.rank}'}}]"
    config = OmegaConf.create(
        f"{{adapter: {{kind: full}}, seed: 1, copy: '${{seed}}', paper: {{n: 2}}, grid: {rules}}}"
    )
    assert plain_config(config) == {"adapter": {"kind": "full"}, "seed": 1, "copy": 1, "paper": None, "grid": []}
    assert plain_config(config, resolve=False)["copy"] == "${seed}"


def test_a_run_may_refer_to_what_only_the_sweep_reads():
    config = OmegaConf.create("{task: {batch_size: '${paper.batch.rte}'}, paper: {batch: {rte: 32}}}")
    assert plain_config(config) == {"task": {"batch_size": 32}, "paper": None}
