"""`hydra/launcher=ray` on a cluster of several Ray nodes: the table of a serial sweep, whatever node or driver dies."""

import json
import os
import shutil
import signal
import subprocess
import time

import pytest

from tests.helpers.apps import SMALL, command, records, run
from tests.helpers.command_lines import run_all

ray = pytest.importorskip("ray", reason="Ray is not installed")

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster")]

SWEEP = ("-m", *SMALL, "trainer.max_epochs=6", "adapter=lora,lu", "seed=0,1,2,3")
RAY = ("hydra/launcher=ray",)


@pytest.fixture(scope="module")
def cluster():
    """A head without CPUs and two nodes with one CPU each, so that a sweep runs on those two."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    yield cluster
    cluster.shutdown()


@pytest.fixture(scope="module")
def serial(tmp_path_factory):
    folder = tmp_path_factory.mktemp("serial")
    assert run(folder, *SWEEP).returncode == 0
    return folder


def table(folder):
    (path,) = folder.glob("reports/*/table.csv")
    return path.read_text()


def outcomes(folder):
    """Return metrics and hashes of each run; the folder of a logger has another name after a start anew."""
    return {
        one["run_id"]: (one["metrics"], {name: file for name, file in one["files"].items() if "/" not in name})
        for one in records(folder)
    }


def start(folder, cluster, *arguments, sweep=SWEEP):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "160"}
    words = command(folder, *sweep, *RAY, f"hydra.launcher.address='{cluster.address}'", *arguments)
    return subprocess.Popen(
        words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def ended(process):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out, err


def wait_for(process, folder, pattern, count, since=0.0):
    """Wait for so many files that are younger than `since`."""

    def is_new(path):
        try:
            return path.stat().st_mtime > since
        except FileNotFoundError:  # a claim was released just now
            return False

    while sum(map(is_new, folder.glob(pattern))) < count:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)


def test_a_killed_driver_and_a_lost_node_cost_no_record_and_no_digit(cluster, serial, tmp_path):
    first = start(tmp_path, cluster)
    wait_for(first, tmp_path, "runs/*/record.json", 2)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    done = {one["run_id"]: one["attempt"] for one in records(tmp_path)}

    since = time.time()
    second = start(tmp_path, cluster)
    wait_for(second, tmp_path, "runs/*/record.json", len(done) + 1)
    wait_for(second, tmp_path, "claims/*", 2, since)  # each node trains a run
    cluster.remove_node(cluster.list_all_nodes()[-1], allow_graceful=False)
    cluster.add_node(num_cpus=1)
    out, err = ended(second)
    assert out.count("already done") >= len(done)
    assert "its worker was lost" in err
    assert {run_id: after for run_id, (_, after) in attempts(tmp_path).items() if run_id in done} == done
    assert outcomes(tmp_path) == outcomes(serial)
    assert table(tmp_path) == table(serial)
    assert [line.split(" |")[0] for line in out.splitlines() if line.startswith("run ")] == [
        f"run {number} of 8" for number in range(1, 9)
    ]


def attempts(folder):
    return {one["run_id"]: (one["status"], one["attempt"]) for one in records(folder)}


def test_runs_come_home_from_nodes_that_share_nothing(cluster, serial, tmp_path):
    home, nodes = tmp_path / "home", tmp_path / "nodes"
    away = ("hydra.launcher.shared=false", f"hydra.launcher.work_dir={nodes}")
    # the first run of the sweep is here already: no node may train it
    assert run(home, *SMALL, "trainer.max_epochs=6", "adapter=lora", "seed=0").returncode == 0
    (before,) = records(home)
    out, _ = ended(start(home, cluster, *away))
    assert out.count("already done") == 1
    assert outcomes(home) == outcomes(serial)
    assert table(home) == table(serial)
    own = {path.name for path in nodes.iterdir()}
    assert len(own) == 2  # each node its own folder
    trained = [path.parent.name for path in nodes.glob("*/runs/*/record.json")]
    assert before["run_id"] not in trained
    assert len(trained) == len(set(trained))
    assert all(one["config"]["paths"]["results_dir"] == str(home) for one in records(home))


def test_a_lost_node_that_shares_nothing_costs_at_most_an_epoch(cluster, tmp_path):
    sweep = ("-m", *SMALL, "trainer.max_epochs=25", "adapter=lora,lu", "seed=0")
    assert run(tmp_path / "serial", *sweep).returncode == 0
    home, nodes = tmp_path / "home", tmp_path / "nodes"
    away = ("hydra.launcher.shared=false", f"hydra.launcher.work_dir={nodes}")
    first = start(home, cluster, *away, sweep=sweep)
    wait_for(first, home, "attempts/*/*.tar", 2)
    os.killpg(first.pid, signal.SIGKILL)  # the first loss is that of the driver
    first.wait()
    time.sleep(2)  # Ray ends its tasks
    for path in nodes.glob("*/attempts"):
        shutil.rmtree(path)  # as if each node had been replaced

    second = start(home, cluster, *away, sweep=sweep)
    wait_for(second, nodes, "*/attempts/*/*/checkpoint/progress.json", 2)
    (lost, *_) = (path.name for path in nodes.iterdir() if any(path.glob("attempts/*/*")))
    (node,) = (node for node in cluster.list_all_nodes() if lost.endswith(node.node_id[:12]))
    cluster.remove_node(node, allow_graceful=False)
    cluster.add_node(num_cpus=1)
    _, err = ended(second)
    assert "its worker was lost" in err
    assert err.count("goes on from the last checkpoint that came home") == 3  # both runs, then the lost one
    assert outcomes(home) == outcomes(tmp_path / "serial")
    assert table(home) == table(tmp_path / "serial")
    assert not list(home.glob("attempts/*/*"))


def test_a_child_comes_home_with_the_parent_that_is_there_already(cluster, tmp_path):
    home, nodes = tmp_path / "home", tmp_path / "nodes"
    assert run(home, *SMALL).returncode == 0
    (parent,) = records(home)
    words = command(home, "-m", *SMALL, "optimizer.lr=1e-3", "start_from=[optimizer.lr=3e-3]", *RAY)
    words += [f"hydra.launcher.address='{cluster.address}'", "hydra.launcher.shared=false"]
    words += [f"hydra.launcher.work_dir={nodes}"]

    def child(*more):
        done = subprocess.run([*words, *more], check=False, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        after = {one["run_id"]: one for one in records(home)}
        assert len(after) == 2
        assert after[parent["run_id"]] == parent
        (child,) = after.keys() - {parent["run_id"]}
        assert after[child]["hashes"]["parent"] == parent["run_id"]
        return after[child]

    first = child()
    assert child() == first
    again = child("rerun=true")
    assert again["attempt"] > first["attempt"]
    assert again["started"] > first["finished"]
    assert again["metrics"] == first["metrics"]


def test_runs_that_share_a_gpu_train_at_the_same_time(cluster, serial, tmp_path):
    node = cluster.add_node(num_cpus=2, num_gpus=1)  # a GPU by Ray's word: the runs train on its CPUs
    try:
        process = start(tmp_path, cluster, "hydra.launcher.runs_per_device=2")
        wait_for(process, tmp_path, "claims/*", 2)  # the other nodes have no GPU
        ended(process)
    finally:
        cluster.remove_node(node)
    assert outcomes(tmp_path) == outcomes(serial)
    assert table(tmp_path) == table(serial)


def test_a_failed_run_and_a_wrong_cluster_are_one_line_each(cluster, tmp_path):
    here = f"hydra.launcher.address='{cluster.address}'"
    wrong = (
        (["hydra.launcher.address='127.0.0.1:1'"], "(=127.0.0.1:1): no Ray cluster answers there"),
        ([here, "hydra.launcher.gpus=1"], "`hydra.launcher.gpus` (=1) must be at most the 0 GPUs"),
        ([here, "hydra.launcher.cpus=9"], "`hydra.launcher.cpus` (=9) must be at most the 2 CPUs"),
        ([here, "hydra.launcher.runs_per_device=2"], "(=2) needs a GPU, and the Ray cluster has none: leave it out"),
        (["hydra.launcher.runs_per_device=0"], "`hydra.launcher.runs_per_device` (=0) must be a whole number of at"),
        (["hydra.launcher.cpus=0"], "`hydra.launcher.cpus` (=0) must be a whole number of at least 1"),
    )
    lines = [command(tmp_path, *SWEEP, *RAY, *words)[3:] for words, _ in wrong]
    for outcome, (_, expected) in zip(run_all(lines), wrong, strict=True):
        assert outcome.code == 1
        assert expected in outcome.errors
        assert len(outcome.errors.splitlines()) == 1
    assert not list(tmp_path.glob("runs/*"))


def test_the_packed_run_is_checked(serial, tmp_path):
    from xlora_bench.runs.parcel import packed, publish_packed

    (path, *_) = serial.glob("runs/*")
    content = bytearray(packed(path))
    content[content.index(b"adapter.safetensors") + 2048] ^= 1
    with pytest.raises(ValueError, match="was damaged on its way"):
        publish_packed(bytes(content), tmp_path / "runs" / path.name)
    publish_packed(packed(path), tmp_path / "runs" / path.name)
    copied = json.loads((tmp_path / "runs" / path.name / "record.json").read_text())
    assert copied["config"]["paths"]["results_dir"] == str(tmp_path)
