"""The finding's config: its runs, the same budget of trials for every method, seeds that tuning never sees."""

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import instantiate
from omegaconf import OmegaConf

from tests.helpers.names import CONF
from xlora_bench.results.reproduce.records_archive import read_archive
from xlora_bench.runs.config_hash import relevant
from xlora_bench.sweeps.planning.phases import Phases

pytestmark = pytest.mark.slow

ADAPTERS = ("lora", "pissa", "loldu", "asymmetric")  # the last is two methods: one factor frozen, or the other
METHODS = len(ADAPTERS) + 1
LATER = ("_target_", "row_lengths")  # changed since the records were written
TASKS = ("sst2", "rte")


def test_every_method_has_three_trials_and_rows_of_its_task():
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("experiment/minilm_glue", ["logger=csv"], return_hydra_config=True)
        arguments = [f"adapter={','.join(ADAPTERS)}", f"task={','.join(TASKS)}", "seed=0,1"]
        rounds = Phases(config, GlobalHydra.instance().config_loader(), arguments=arguments)
        kinds = [kind for planned in rounds.runs for kind in planned.tuning]
        assert kinds.count("trial") == METHODS * len(TASKS) * 3
        assert kinds.count("fixed") == METHODS * len(TASKS) * 2
        for planned in rounds.runs:
            chosen = dict(override.split("=", 1) for override in planned.overrides)
            assert chosen["task.max_train_rows"] == {"sst2": "768", "rte": "48"}[chosen["task"]]
            assert (chosen["seed"] == "1000") == ("task.holdout" in chosen) == ("trial" in planned.tuning)
            assert chosen.get("adapter.rank") == ("384" if chosen["adapter"] == "loldu" else None)
    for part in ("model", "adapter", "init_scheme", "targets", "task", "optimizer", "scheduler"):
        instantiate(config[part])


def test_the_runs_are_those_that_were_recorded():
    recorded = read_archive(CONF.parent / "docs" / "findings" / "minilm_glue" / "records.jsonl.gz").values()
    known = [settings(run.record.config) for run in recorded]
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("experiment/minilm_glue", return_hydra_config=True)
        arguments = [f"adapter={','.join(ADAPTERS)}", "task=sst2,stsb,cola,mrpc,rte", "seed=0,1"]
        rounds = Phases(config, GlobalHydra.instance().config_loader(), arguments=arguments)
        overrides = [planned.overrides for planned in rounds.runs if "trial" not in planned.tuning]
        configs = [
            OmegaConf.to_container(compose("experiment/minilm_glue", list(lines)), resolve=True) for lines in overrides
        ]
    assert len(configs) == METHODS * 5 * 2
    assert not [config for config in configs if settings(config) not in known]


def settings(config):
    """Return what a config says of the run, without what has changed since."""
    kept = {key: value for key, value in relevant(config).items() if key not in ("arithmetic", "start_from")}
    return {
        key: {name: option for name, option in value.items() if name not in LATER and option is not None}
        if isinstance(value, dict)
        else value
        for key, value in kept.items()
    }
