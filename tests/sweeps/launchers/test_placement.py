"""Worker placement: how many workers, with how many threads, on which cores and devices."""

import os
import re

import pytest
from omegaconf import OmegaConf

from xlora_bench.sweeps.launchers import placement
from xlora_bench.sweeps.launchers.parallel import ParallelLauncher
from xlora_bench.sweeps.launchers.placement import choose_slots, count_cores, slots, visible_devices, workers_in_memory
from xlora_bench.sweeps.launchers.ray_tasks import RayLauncher
from xlora_bench.sweeps.launchers.slurm import SlurmLauncher

LARGE = {"model": {"name": "FacebookAI/roberta-large"}}  # 302M weights: 1.2 GB, 4.7 GB a worker


@pytest.fixture
def three_cores(monkeypatch, tmp_path):
    """A machine with cores {0,4} {1,5} {2,6} {3,7}, of which 3 and 7 are not ours, no quota and no GPU."""
    for cpu in range(8):
        folder = tmp_path / f"cpu{cpu}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{cpu % 4},{cpu % 4 + 4}\n")
    monkeypatch.setattr(placement, "TOPOLOGY", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 4, 5, 6}, raising=False)
    monkeypatch.setattr(placement.joblib, "cpu_count", lambda **_: 6)
    monkeypatch.setattr(placement, "visible_devices", list)
    free_memory(monkeypatch, 100e9)


def free_memory(monkeypatch, count):
    monkeypatch.setattr(placement.psutil, "virtual_memory", lambda: type("Memory", (), {"available": count}))


def chosen(config=None, *, workers=None, threads=None, **more):
    """Return how many workers there are, the threads of each, and the devices."""
    result = choose_slots(OmegaConf.create(config or {}), workers=workers, threads=threads, **more)
    assert len({slot.threads for slot in result}) == 1
    return len(result), result[0].threads, [slot.device for slot in result if slot.device]


@pytest.mark.usefixtures("three_cores")
def test_workers_that_fill_the_cores_are_bound_to_their_own():
    assert count_cores() == 3
    assert [slot.cpus for slot in slots(3, 1, devices=[])] == [{0, 4}, {1, 5}, {2, 6}]
    assert [slot.cpus for slot in slots(1, 3, devices=[])] == [{0, 1, 2, 4, 5, 6}]
    assert [slot.cpus for slot in slots(2, 1, devices=[])] == [None, None]


@pytest.mark.usefixtures("three_cores")
def test_a_quota_below_the_cores_counts_and_binds_nobody(monkeypatch):
    monkeypatch.setattr(placement.joblib, "cpu_count", lambda **_: 2)
    assert count_cores() == 2
    assert [slot.cpus for slot in slots(2, 1, devices=[])] == [None, None]


@pytest.mark.usefixtures("three_cores")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 4}, r"workers` x `hydra.launcher.threads` \(=4 x 1\) must be at most the 3"),
        ({"threads": 4}, r"\(=1 x 4\) must be at most the 3"),
        ({"workers": 0}, r"workers` \(=0\)"),
        ({"threads": 0}, r"threads` \(=0\)"),
        (
            {"runs_per_device": 2},
            r"runs_per_device` \(=2\) needs a GPU, .*: leave it out, and set workers",
        ),
    ],
)
def test_what_cannot_be_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        chosen(**options)


@pytest.mark.usefixtures("three_cores")
def test_a_worker_per_core_with_one_thread_unless_the_user_sets_a_number(monkeypatch, capsys):
    assert chosen() == (3, 1, [])
    assert capsys.readouterr().out == "parallel: at most 3 workers x 1 threads on 3 cores\n"
    assert chosen(workers=2) == (2, 1, [])
    assert chosen(threads=2) == (1, 2, [])
    assert chosen(workers=1, threads=3) == (1, 3, [])
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert chosen() == (3, 1, [])


@pytest.mark.usefixtures("three_cores")
def test_a_worker_per_device_unless_the_trainer_uses_none(monkeypatch, capsys):
    monkeypatch.setattr(placement, "visible_devices", lambda: ["5", "7"])
    assert chosen() == (2, 1, ["5", "7"])
    assert capsys.readouterr().out == "parallel: at most 2 workers x 1 threads on 3 cores, GPUs 5,7\n"
    assert chosen({"trainer": {"accelerator": "cpu"}}) == (3, 1, [])


@pytest.mark.usefixtures("three_cores")
def test_runs_share_a_device_and_keep_their_threads_though_cores_are_few(monkeypatch, capsys):
    monkeypatch.setattr(placement, "visible_devices", lambda: ["5", "7"])
    assert chosen(runs_per_device=2) == (4, 1, ["5", "7", "5", "7"])
    line = "parallel: at most 4 workers x 1 threads on 3 cores, GPUs 5,7 with at most 2 runs each"
    assert capsys.readouterr().out == line + "; the workers share the cores\n"
    assert chosen(workers=3, runs_per_device=2) == (3, 1, ["5", "7", "5"])
    assert capsys.readouterr().out == line.replace("most 4", "most 3") + "\n"
    with pytest.raises(ValueError, match=r"\(=3\) must be at most 2 GPUs x `hydra.launcher.runs_per_device` \(=1\)"):
        chosen(workers=3)
    with pytest.raises(ValueError, match=r"\(=4 x 2\) must be at most the 3 cores"):
        chosen(threads=2, runs_per_device=2)
    with pytest.raises(ValueError, match=r"runs_per_device` \(=2\) needs a GPU"):
        chosen({"trainer": {"accelerator": "cpu"}}, runs_per_device=2)


@pytest.mark.parametrize("value", [0, -1, 1.5, "2", True, None, "auto"])
@pytest.mark.parametrize("launcher", [ParallelLauncher, RayLauncher, SlurmLauncher])
def test_the_runs_of_a_device_are_a_whole_number(launcher, value):
    line = rf"^`hydra.launcher.runs_per_device` \(={re.escape(str(value))}\) must be a whole number of at least 1, .*;"
    with pytest.raises(ValueError, match=line):
        launcher(runs_per_device=value)


@pytest.mark.usefixtures("three_cores")
def test_a_worker_has_the_devices_of_a_run(monkeypatch):
    monkeypatch.setattr(placement, "visible_devices", lambda: ["5", "7", "8", "9", "10"])
    assert chosen({"trainer": {"devices": 2}}) == (2, 1, ["5,7", "8,9"])
    assert chosen({"trainer": {"accelerator": "cpu", "devices": 3}}) == (1, 3, [])


@pytest.mark.usefixtures("three_cores")
def test_workers_have_to_fit_into_memory_and_there_is_always_one(monkeypatch):
    free_memory(monkeypatch, 12e9)
    assert workers_in_memory(OmegaConf.create(LARGE)) == 2
    assert chosen(LARGE) == (2, 1, [])
    assert chosen() == (3, 1, [])  # a model of no name is taken for a base model
    assert chosen(LARGE, workers=3) == (3, 1, [])
    free_memory(monkeypatch, 1e9)
    assert chosen(LARGE) == (1, 1, [])


def test_devices_are_named_as_the_environment_names_them(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_devices() == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a, GPU-b")
    assert visible_devices() == ["GPU-a", "GPU-b"]
