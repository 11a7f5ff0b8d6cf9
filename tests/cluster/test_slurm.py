"""`hydra/launcher=slurm` on a real Slurm: the digits of a serial sweep, through lost nodes, drivers and time limits."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.helpers.apps import SMALL, records
from tests.helpers.command_lines import run_all
from tests.helpers.names import ROOT

MODULE = """
import os, time
import lightning

class Count(lightning.Callback):
    def __init__(self, seed=None):
        self.seed = seed

    def on_train_epoch_end(self, trainer, pl_module):
        with open("epochs.txt", "a") as file:
            file.write(f"{trainer.logger.save_dir} {trainer.current_epoch}\\n")
        time.sleep(float(os.environ["PAUSE"]))
        if self.seed == 1:
            raise RuntimeError("out of memory")
"""
LEASE = """
import xlora_bench.runs.claim
xlora_bench.runs.claim.SECONDS = 15.0
"""
"""Imported at the start of every process: a minute until the claim of a lost node expires would be too long here."""
EPOCHS = 4
OPTIONS = ("--config-dir", "groups", "-m", "callbacks=count", *SMALL, f"trainer.max_epochs={EPOCHS}")
SWEEP = (*OPTIONS, "adapter=lora,lu", "seed=0,1,2,3")
SLURM = ("hydra/launcher=slurm", "hydra.launcher.workers=2")

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("slurm")]


class Slurm:
    """A Slurm of two nodes, each a host of its own as far as programs on it can tell."""

    def __init__(self, folder):
        self.folder = folder
        self.conf = str(folder / "slurm.conf")

    def script(self, action, *words):
        path = Path(__file__).with_name("slurm.sh")
        return subprocess.run(
            [path, action, self.folder, *map(str, words)], check=False, stderr=subprocess.PIPE, text=True
        )

    def __call__(self, *words):
        environment = os.environ | {"SLURM_CONF": self.conf}
        return subprocess.run(words, check=True, capture_output=True, text=True, env=environment).stdout

    def tasks(self):
        """The state and the node of each task that waits or runs, by its number in the array."""
        lines = self("squeue", "--noheader", "--array", "--format=%K %T %N").splitlines()
        return {int(line.split()[0]): line.split()[1:] for line in lines if line.split()[0].isdecimal()}

    def restarts(self):
        return sum(map(int, re.findall(r"Restarts=(\d+)", self("scontrol", "show", "jobs"))))


@pytest.fixture
def slurm(request):
    nodes, gpus = getattr(request, "param", (2, 0))
    commands = ("slurmctld", "slurmd", "sbatch", "munged", "unshare")
    if missing := [name for name in commands if shutil.which(name) is None]:
        pytest.skip(f"no {', '.join(missing)} on this machine")
    if os.getuid():
        pytest.skip("Slurm's daemons need root")
    slurm = Slurm(Path(tempfile.mkdtemp()))
    try:
        if subprocess.run(["unshare", "--pid", "--uts", "--mount-proc", "--fork", "true"], check=False).returncode:
            pytest.skip("no namespaces for the nodes on this machine")
        done = slurm.script("start", nodes, gpus)
        assert not done.returncode, done.stderr
        yield slurm
    finally:
        slurm.script("stop")
        shutil.rmtree(slurm.folder, ignore_errors=True)


class App:
    """A folder of a user, and the program in it."""

    def __init__(self, folder, conf="", pause=0.0):
        self.folder = folder
        (folder / "groups" / "callbacks").mkdir(parents=True, exist_ok=True)
        (folder / "groups" / "callbacks" / "count.yaml").write_text("count: {_target_: mine.Count}")
        (folder / "mine.py").write_text(MODULE)
        (folder / "sitecustomize.py").write_text(LEASE)
        own = {"PYTHONPATH": f"{folder}:{ROOT}", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "300"}
        self.environment = os.environ | own | {"SLURM_CONF": conf, "PAUSE": str(pause)}

    def start(self, *words):
        return subprocess.Popen(
            [sys.executable, "-m", "xlora_bench", *words, "paths.cache_dir=cache"],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *words):
        process = self.start(*words)
        out, err = process.communicate(timeout=300)
        return process.returncode, out, err

    def command(self, *words):
        return subprocess.run(
            [sys.executable, "-m", "xlora_bench", *words],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    @property
    def epochs(self):
        """How often each epoch of each run was trained."""
        path = self.folder / "epochs.txt"
        lines = path.read_text().splitlines() if path.exists() else []
        return Counter((Path(line.split()[0]).parent.name, line.split()[1]) for line in lines)

    def wait(self, epochs):
        """Wait for so many more epochs."""
        target, end = self.epochs.total() + epochs, time.monotonic() + 120
        while self.epochs.total() < target:
            assert time.monotonic() < end
            time.sleep(0.1)

    @property
    def results(self):
        """The table, and the metrics of the runs."""
        (table,) = (self.folder / "multirun" / "reports").glob("*/table.csv")
        return table.read_text(), [record["metrics"] for record in records(self.folder / "multirun")]


@pytest.fixture
def app(tmp_path, slurm):
    return App(tmp_path, slurm.conf, pause=1)


@pytest.fixture(scope="module")
def serial(tmp_path_factory):
    app = App(tmp_path_factory.mktemp("serial"))
    code, _, err = app.run(*SWEEP)
    assert code == 0, err
    return app.results


def test_a_driver_that_was_killed_comes_back_to_its_array(app, slurm, serial):
    words = (*SWEEP, *SLURM, "hydra.launcher.workers=3")  # on two nodes: the third waits
    first = app.start(*words)
    app.wait(3)
    first.kill()
    first.wait()
    (array,) = app.folder.glob("multirun/slurm/*/*/array.json")
    array.write_text(json.dumps({"name": json.loads(array.read_text())["name"]}))  # killed before it had the id
    status = json.loads(app.command("status", "--json"))
    code, out, err = app.run(*words)
    tasks = slurm.tasks()
    assert code == 0, err
    assert all(task[0] == "COMPLETING" for task in tasks.values()), tasks
    assert "of an earlier start still trains these runs: waiting for it" in out
    assert out.count("| score") == 8
    assert app.results == serial
    assert len(app.epochs) == 8 * EPOCHS
    assert app.epochs.total() == 8 * EPOCHS
    assert status["counts"]["running"] == 2, status
    assert status["counts"]["planned"] + status["counts"]["completed"] == 6
    running = [run for run in status["runs"] if run["state"] == "running"]
    assert all(run["overrides"].keys() == {"adapter", "seed"} for run in running)


@pytest.mark.parametrize("slurm", [(1, 1)], indirect=True)
def test_runs_that_share_the_gpu_of_a_task_train_at_the_same_time(app, slurm, serial):
    gpu = ("hydra.launcher.workers=1", "hydra.launcher.gpus=1", "hydra.launcher.runs_per_device=2")
    process = app.start(*SWEEP, *SLURM, *gpu)
    while len(list(app.folder.glob("multirun/claims/*"))) < 2:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.1)
    assert len(slurm.tasks()) == 1
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert app.results == serial
    assert app.epochs.total() == 8 * EPOCHS


def test_interrupted_workers_go_on_from_the_last_whole_epoch(app, slurm, serial):
    process = app.start(*SWEEP, *SLURM)
    app.wait(3)
    (array,) = app.folder.glob("multirun/slurm/*/*/array.json")
    number = json.loads(array.read_text())["id"]
    slurm("scancel", "--signal=USR1", "--batch", f"{number}_0")  # as before the time limit
    app.wait(3)
    slurm("sbatch", "--partition=high", "--output=/dev/null", f"--nodelist={slurm.tasks()[1][1]}", "--wrap=sleep 2")
    app.wait(6)
    slurm.script("kill-node", 1)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert app.results == serial
    assert slurm.restarts() >= 3
    assert len(app.epochs) == 8 * EPOCHS
    assert app.epochs.total() - 8 * EPOCHS <= 3


def test_a_failing_run_ends_as_in_a_serial_sweep(app, tmp_path):
    words = (*OPTIONS, "+callbacks.count.seed=${seed}", "seed=0,1")
    serial = App(tmp_path / "serial").start(*words)
    code, out, err = app.run(*words, *SLURM)
    serial_out, serial_err = serial.communicate(timeout=300)
    assert code == serial.returncode == 2
    assert err.splitlines()[-1] == serial_err.splitlines()[-1]
    assert outcomes(out) == outcomes(serial_out)


def outcomes(out):
    """The progress lines without their order and times."""
    lines = [
        line.partition(" | elapsed")[0].partition(" | ")[2]
        for line in out.splitlines()
        if re.match(r"run \d+ of ", line)
    ]
    return sorted(lines)


def test_an_array_that_trains_nothing_names_its_logs(app, slurm):
    code, _, err = app.run(*SWEEP, *SLURM, "hydra.launcher.setup=['exit 1']")
    assert code == 2
    assert re.search(r"8 of 8 runs failed.*its output: \S+/logs", err.splitlines()[-1])
    assert not slurm.tasks()


def test_wrong_options_are_refused(app, slurm):
    lines = {
        "hydra.launcher.runs_per_device=2": "`hydra.launcher.gpus` (=None) to 1 or TYPE:1",
        "hydra.launcher.workers=0": "`hydra.launcher.workers` (=0) must be a whole number of at least 1",
        "hydra.launcher.partition=x": "sbatch failed: sbatch: error: invalid partition specified: x",
    }
    own = {name: app.environment[name] for name in ("SLURM_CONF", "PAUSE", "PYTHONPATH")}
    ended = run_all([[*OPTIONS, "seed=0,1", *SLURM, word] for word in lines], folder=app.folder, **own)
    for done, line in zip(ended, lines.values(), strict=True):
        assert done.code == 1, done
        assert len(done.errors.splitlines()) == 1
        assert line in done.errors
    assert "No jobs" in slurm("scontrol", "show", "jobs")
    assert not (app.folder / "multirun" / "reports").exists()
