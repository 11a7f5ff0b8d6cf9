"""Parts of `hydra/launcher=slurm` that need no Slurm; tests/cluster has the others."""

import json
import re
from contextlib import suppress
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf

from xlora_bench.runs import claim
from xlora_bench.runs.command_line import CommandLine
from xlora_bench.sweeps.launchers import slurm_array
from xlora_bench.sweeps.launchers.slurm import SlurmLauncher, is_held
from xlora_bench.sweeps.launchers.slurm_array import Array
from xlora_bench.sweeps.launchers.slurm_worker import SlurmWorkerLauncher
from xlora_bench.sweeps.launchers.workers import WorkerSlot


def test_without_slurm_the_launcher_is_refused_before_the_sweep_is_planned(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match=r"no command `sbatch` on this machine; .* hydra/launcher=parallel"):
        SlurmLauncher().setup(hydra_context=None, task_function=None, config=None)


def script_of(folder, monkeypatch, **options):
    """Return the options of sbatch and the overrides of the worker in the batch script."""
    launcher = SlurmLauncher(**options)
    line = CommandLine(config_name="config", config_dir=None, hydra=())
    monkeypatch.setattr(CommandLine, "of", lambda _: line)
    launcher._sweep = SimpleNamespace(config=OmegaConf.create({"hydra": {}}))
    text = launcher.script(folder / "slurm" / "sweep" / "launch", workers=2)
    batch = dict(re.findall(r"^#SBATCH --([\w-]+)=(.*)$", text, re.MULTILINE))
    return batch, dict(re.findall(r"hydra\.launcher\.(\w+)=(\S+)", text))


@pytest.mark.parametrize("gpus", [1, "1", "a100:1"])
def test_the_runs_that_share_the_gpu_of_a_task_have_their_cpus(monkeypatch, tmp_path, gpus):
    batch, worker = script_of(tmp_path, monkeypatch, threads=3, gpus=gpus, runs_per_device=4)
    assert (batch["gpus-per-task"], batch["cpus-per-task"]) == (str(gpus), "12")
    assert (worker["threads"], worker["runs_per_device"]) == ("3", "4")
    batch, worker = script_of(tmp_path, monkeypatch, threads=3)
    assert (batch["cpus-per-task"], worker["runs_per_device"]) == ("3", "1")


@pytest.mark.parametrize("gpus", [None, 2, "a100:2", "11", "a100"])
def test_runs_share_the_gpu_of_a_task_that_has_one(gpus):
    with pytest.raises(ValueError, match=r"runs_per_device` \(=2\) needs one GPU per task: set `hydra.launcher.gpus`"):
        SlurmLauncher(gpus=gpus, runs_per_device=2)
    SlurmLauncher(gpus=gpus)


def test_a_task_has_so_many_processes_that_all_see_its_gpu(tmp_path):
    config = OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}})
    pool = SlurmWorkerLauncher(index=0, workers=2, sweep="s", threads=3, runs_per_device=4).executor(config)
    assert pool._slots == [WorkerSlot(threads=3)] * pool.slots
    assert pool.slots == 4


class FakeSlurm:
    """Answers `squeue` with `queue`, a line per task; `sbatch` adds an array and may be killed before it answers."""

    def __init__(self, queue):
        self.queue, self.is_killed, self.is_silent = queue, False, False

    def __call__(self, command, *options):
        if self.is_silent:
            raise ValueError("squeue failed: Unable to contact slurm controller")
        if command == "squeue":
            return "".join(f"{line}\n" for line in self.queue)
        (name,) = [option.partition("=")[2] for option in options if option.startswith("--job-name=")]
        self.queue += [f"7 7 RUNNING {name}", f"7 8 PENDING {name}", f"7 9 COMPLETED {name}"]
        if self.is_killed:
            raise KeyboardInterrupt
        return "7;cluster\n"


@pytest.fixture
def fake(monkeypatch):
    fake = FakeSlurm(["5 5 RUNNING xlora-x-00000000", "6 6 RUNNING "])  # an older array, and a job without a name
    monkeypatch.setattr(slurm_array, "slurm", fake)
    return fake


@pytest.mark.parametrize("killed", [False, True])
def test_an_array_is_known_though_its_driver_was_killed_while_it_submitted_it(fake, tmp_path, killed):
    path = tmp_path / "array.json"
    assert Array(path).tasks() == 0
    fake.is_killed = killed
    with suppress(KeyboardInterrupt):
        Array(path).submit(tmp_path / "worker.sh", name="xlora-x")
    assert Array(path).id == (None if killed else "7")
    assert Array(path).tasks() == 2
    assert Array(path).id == "7"


def test_a_driver_that_was_killed_before_sbatch_submits_anew(fake, tmp_path):
    path = tmp_path / "array.json"
    path.write_text(json.dumps({"name": "xlora-x-12345678"}))
    assert Array(path).tasks() == 0
    assert Array(path).id is None


def test_one_line_says_that_slurm_does_not_answer(fake, tmp_path, caplog):
    array = Array(tmp_path / "array.json")
    array.submit(tmp_path / "worker.sh", name="xlora-x")
    fake.is_silent = True
    for question in range(1, 6):
        assert array.is_active()
        assert len(caplog.records) == (question >= slurm_array.PATIENCE)
    (line,) = caplog.messages
    assert "Unable to contact slurm controller (3 times in a row); array 7 may still run" in line
    fake.is_silent = False
    fake.queue.clear()
    assert not array.is_active()
    fake.is_silent = True
    assert all(array.is_active() for _ in range(slurm_array.PATIENCE))
    assert len(caplog.records) == 2  # a new outage has a line of its own


def test_a_command_that_does_not_answer_is_an_error_of_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(slurm_array, "ANSWER_SECONDS", 0.05)
    with pytest.raises(ValueError, match=r"`hydra/launcher` \(=slurm\): sleep failed: .*timed out"):
        slurm_array.slurm("sleep", "5")


def test_a_run_is_held_as_long_as_its_claim(tmp_path):
    folder = tmp_path / "slurm" / "sweep" / "launch"
    assert not is_held(folder, 0)
    (folder / "0").mkdir(parents=True)
    (folder / "0" / "run.json").write_text(json.dumps({"run_id": "a"}))
    own = claim.Claim(tmp_path / "claims" / "a")
    assert own.take()
    with own:
        assert is_held(folder, 0)
    assert not is_held(folder, 0)
