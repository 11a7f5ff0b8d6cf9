"""A small config folder, in which composing a run takes milliseconds."""

import copy
from types import SimpleNamespace

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from tests.helpers.names import CONF
from xlora_bench.runs.hydra_internals import SweepLoader
from xlora_bench.sweeps.planning.phases import Phases

FILES = {
    "config": """
defaults:
  - adapter: lora
  - task: cola
  - override hydra/launcher: serial
  - override hydra/sweeper: grid
  - override hydra/callbacks: report
  - _self_
seed: 0
rerun: false
start_from: null
optimizer: {lr: 0.001}
grid: []
tuning: null
paths: {results_dir: multirun}
hydra: {sweep: {dir: "${paths.results_dir}/sweeps/${now:%H-%M-%S-%f}"}}
""",
    "adapter/lora": "{rank: 8, alpha: 16}",
    "adapter/lu": "{rank: 8, alpha: 16, kind: lu}",
    "adapter/tied": "{rank: 8, alpha: '${.rank}'}",
    "adapter/head": "{kind: head}",
    "task/cola": "{name: cola, holdout: null}",
    "task/rte": "{name: rte, holdout: null}",
    "task/mnli": "{name: mnli, holdout: null}",
    **{
        f"hydra/{name}": (CONF / "hydra" / f"{name}.yaml").read_text()
        for name in ("sweeper/grid", "callbacks/report", "launcher/parallel", "launcher/serial")
    },
}


@pytest.fixture(scope="session")
def conf(tmp_path_factory):
    folder = tmp_path_factory.mktemp("conf")
    for name, text in FILES.items():
        path = folder / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.fixture(scope="session")
def primary(conf):
    """Return the primary config and a loader."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf), version_base="1.3"):
        loader = SweepLoader(GlobalHydra.instance().config_loader())
        return compose("config", return_hydra_config=True), loader


@pytest.fixture
def phases_of(primary):
    """Return a function that plans a sweep from `params`, other config and a command line."""

    def plan(params, *arguments, **config):
        master, loader = copy.deepcopy(primary[0]), primary[1]
        OmegaConf.set_struct(master, False)
        master.update(config)
        master.hydra.sweeper.params = params
        return Phases(master, loader, arguments=list(arguments))

    return plan


def lines(phases):
    return [list(run.overrides) for run in phases.runs]


def job(score, status="completed"):
    return SimpleNamespace(score=score, status=status)
