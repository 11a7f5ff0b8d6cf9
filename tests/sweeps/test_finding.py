"""The finding's config: its cells, the same budget of trials for every method, seeds that tuning never sees."""

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import instantiate

from tests.names import CONF
from xlora_bench.sweeps.rounds import Rounds

ADAPTERS = ("lora", "pissa", "loldu", "asymmetric")  # the last is two methods: one factor frozen, or the other
METHODS = len(ADAPTERS) + 1
TASKS = ("sst2", "rte")


def test_every_method_has_three_trials_and_rows_of_its_task():
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("finding/minilm_glue", ["logger=csv"], return_hydra_config=True)
        arguments = [f"adapter={','.join(ADAPTERS)}", f"task={','.join(TASKS)}", "seed=0,1"]
        rounds = Rounds(config, GlobalHydra.instance().config_loader(), arguments=arguments)
        kinds = [kind for cell in rounds.cells for kind in cell.tuning]
        assert kinds.count("trial") == METHODS * len(TASKS) * 3
        assert kinds.count("fixed") == METHODS * len(TASKS) * 2
        for cell in rounds.cells:
            said = dict(override.split("=", 1) for override in cell.overrides)
            assert said["task.max_train_rows"] == {"sst2": "768", "rte": "48"}[said["task"]]
            assert (said["seed"] == "1000") == ("task.holdout" in said) == ("trial" in cell.tuning)
            assert said.get("adapter.rank") == ("384" if said["adapter"] == "loldu" else None)
    for part in ("model", "adapter", "init_scheme", "targets", "task", "optimizer", "scheduler", "logger"):
        instantiate(config[part])
