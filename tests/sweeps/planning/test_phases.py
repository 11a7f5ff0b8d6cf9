"""Long jobs start first."""

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from tests.helpers.names import CONF
from xlora_bench.sweeps.estimate.costs import longest_first, training_flops


@pytest.fixture(scope="module")
def sweep():
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield compose("config", return_hydra_config=True), GlobalHydra.instance().config_loader()


def test_the_largest_task_starts_first_and_equals_keep_their_order(sweep):
    config, loader = sweep
    jobs = [[f"task={task}", f"seed={seed}", "adapter.rank=4"] for task in ("rte", "mnli", "sst2") for seed in (0, 1)]
    assert longest_first(jobs, config=config, loader=loader) == [2, 3, 4, 5, 0, 1]
    jobs = [["trainer.max_epochs=1", "task=rte"], ["task=rte", "trainer.max_epochs=5"]]
    assert longest_first(jobs, config=config, loader=loader) == [1, 0]


@pytest.mark.parametrize(
    "jobs",
    [
        [["seed=0"], ["seed=1"], ["optimizer.lr=1"]],
        [["task=rte", "task.name=unheard"], ["task=mnli"]],
        [["task=rte"], ["task=none_such"], ["task=mnli"]],
    ],
)
def test_unknown_or_equal_costs_leave_the_order(sweep, jobs):
    config, loader = sweep
    assert longest_first(jobs, config=config, loader=loader) == list(range(len(jobs)))


def test_cost_grows_with_rows_epochs_and_model(sweep):
    config, loader = sweep

    def of(*overrides):
        return training_flops(loader.load_sweep_config(config, ["task=sst2", "task.max_train_rows=1000", *overrides]))

    assert of("trainer.max_epochs=6") == pytest.approx(2 * of())
    assert of("task.max_train_rows=500") == pytest.approx(of() / 2)
    assert of("model=roberta_large") > 10 * of()
