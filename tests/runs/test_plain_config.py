"""Configs of runs as plain values."""

import pytest
from omegaconf import OmegaConf

from xlora_bench.runs.plain_config import plain_config, refuse_environment_in


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


@pytest.mark.parametrize(
    ("config", "key"),
    [
        ("logger: {token: '${oc.env:SECRET}'}", "logger.token"),
        ("logger: {token: 'a-${oc.decode:${oc.env:SECRET}}'}", "logger.token"),
        ("logger: {tags: [a, '${oc.env:SECRET,none}']}", "logger.tags"),
        ("task: {deep: {er: {name: '${ oc.env:SECRET}'}}}", "task.deep.er.name"),
        ("seed: '${oc.env:SECRET}'", "seed"),
    ],
)
def test_a_value_of_the_environment_is_refused_without_being_shown(config, key, monkeypatch):
    monkeypatch.setenv("SECRET", "hf_12345")
    with pytest.raises(ValueError, match=f"^`{key}` ") as caught:
        plain_config(OmegaConf.create(f"{{{config}}}"))
    assert "hf_12345" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_folders_may_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("SCRATCH", "/scratch/me")
    config = OmegaConf.create("{paths: {cache_dir: '${oc.env:SCRATCH}/cache'}, logger: {dir: '${paths.cache_dir}'}}")
    assert plain_config(config) == {
        "paths": {"cache_dir": "/scratch/me/cache"},
        "logger": {"dir": "/scratch/me/cache"},
    }


def test_an_override_that_reads_the_environment_is_refused():
    refuse_environment_in(["-m", "seed=0,1", "paths.data_dir=${oc.env:SCRATCH}", "hydra.job.name=${oc.env:X}"])
    with pytest.raises(ValueError, match=r"^`logger.api` \(=\$\{oc.env:HF_TOKEN\}\) must not read"):
        refuse_environment_in(["seed=0", "+logger.api=${oc.env:HF_TOKEN}"])
