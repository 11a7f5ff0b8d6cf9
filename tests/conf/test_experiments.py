"""The experiments of X-LoRA: their runs, by the grids of its scripts."""

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from tests.helpers.names import CONF, choices
from xlora_bench.cli.main import arguments
from xlora_bench.sweeps.planning.phases import Phases

RANKS = (2, 4, 8, 16, 32, 64)
PENALTIES = (0, 1e-5, 1e-4, 1e-3, 1e-2)
METHODS = {
    ("lora", "kaiming", None),
    ("lora", "svd_nosigma", None),
    ("orthogonal", "orthonormal", 1e-4),
    ("orthogonal_qr", "orthonormal", None),
    ("lu", "unit_diagonal", None),
}
RUNS = {
    "xlora_1": {(*method, 8) for method in METHODS},
    "xlora_2": {(*method, rank) for method in METHODS for rank in RANKS},
    "xlora_3": {("orthogonal", "orthonormal", penalty, 8) for penalty in PENALTIES},
}


@pytest.mark.parametrize("name", RUNS)
def test_runs_are_those_of_the_script(name):
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose(f"experiment/{name}", ["seed=0"], return_hydra_config=True)
        phases = Phases(config, GlobalHydra.instance().config_loader(), arguments=["seed=0"])
        composer, planned = phases.grid.composer, set()
        for run in phases.runs:
            overrides = dict(line.split("=", 1) for line in run.overrides)
            one, chosen = composer.resolved(overrides), composer.choices(overrides)
            adapter = one["adapter"]
            assert (one["optimizer"]["lr"], one["task"]["batch_size"], one["trainer"]["max_epochs"]) == (2e-5, 256, 3)
            assert (adapter["alpha"], adapter.get("frequency", 10), chosen["model"]) == (16, 10, "distilbert")
            planned.add((chosen["adapter"], chosen["init_scheme"], adapter.get("penalty_weight"), adapter["rank"]))
    assert planned == RUNS[name]
    assert len(phases.runs) == len(planned)


def test_an_experiment_is_chosen_like_a_group(capsys):
    words = ["experiment=xlora_1", "seed=0", "--dry-run"]
    assert arguments(words) == [
        *("--multirun", "--config-name", "experiment/xlora_1", "hydra/sweeper=dry_run", "seed=0")
    ]
    with pytest.raises(SystemExit):
        arguments(["experiment=xlora_9"])
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"error: `experiment` (=xlora_9) must be one of {', '.join(choices('experiment'))}"
