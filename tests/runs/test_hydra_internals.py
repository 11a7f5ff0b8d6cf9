"""The loader of a sweep gives what Hydra's own gives, and composes each combination of group choices once."""

import pickle

import pytest
from hydra import initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import ConfigCompositionException
from hydra.types import RunMode
from omegaconf import OmegaConf

from tests.helpers.names import CONF
from xlora_bench.runs.hydra_internals import SweepLoader

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def loader():
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield GlobalHydra.instance().config_loader()


def master_of(loader, name="config"):
    return loader.load_configuration(name, ["hydra/launcher=parallel"], run_mode=RunMode.MULTIRUN)


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("config", []),
        ("config", ["adapter.rank=3", "model=bert_base", "adapter=pissa", "seed=1"]),
        ("config", ["+task.extra=1", "~trainer.max_epochs", "++optimizer.lr=0.5", "task=rte"]),
        ("config", ["adapter={rank:3}", "paths.results_dir='x-${now:%f}'", "targets.modules=[query]"]),
        ("config", ["hydra.job.chdir=true", "adapter=lu"]),
        ("paper/xlora_sst2", ["adapter=pissa", "adapter.rank=3", "start_from=['task=mnli']"]),
    ],
)
def test_configs_of_jobs_are_those_of_hydra(loader, name, lines):
    master = master_of(loader, name)
    theirs, ours = (one.load_sweep_config(master, lines) for one in (loader, SweepLoader.of(loader)))
    assert OmegaConf.to_container(ours, resolve=False) == OmegaConf.to_container(theirs, resolve=False)
    assert OmegaConf.get_cache(ours) == OmegaConf.get_cache(theirs)
    assert OmegaConf.is_struct(ours)


def test_jobs_do_not_share_their_configs(loader):
    master, ours = master_of(loader), SweepLoader.of(loader)
    ours.load_sweep_config(master, ["seed=1"]).adapter.rank = 99
    assert ours.load_sweep_config(master, ["seed=1"]).adapter.rank == master.adapter.rank


def test_an_override_that_does_not_fit_is_refused(loader):
    with pytest.raises(ConfigCompositionException, match=r"adapter\.rang"):
        SweepLoader.of(loader).load_sweep_config(master_of(loader), ["adapter.rang=3"])


def test_each_combination_of_choices_is_composed_once(loader, monkeypatch):
    composed = []
    real = ConfigLoaderImpl.load_configuration
    monkeypatch.setattr(
        ConfigLoaderImpl, "load_configuration", lambda *args, **kw: composed.append(kw) or real(*args, **kw)
    )
    master, ours = master_of(loader), SweepLoader.of(loader)
    composed.clear()
    for seed in range(10):
        for adapter in ("lora", "lu"):
            ours.load_sweep_config(master, [f"adapter={adapter}", f"seed={seed}"])
    assert len(composed) == 2


def test_workers_do_not_receive_the_composed_configs(loader):
    ours = SweepLoader.of(loader)
    ours.load_sweep_config(master_of(loader), ["adapter=lu"])
    assert len(pickle.dumps(ours)) < 10_000
