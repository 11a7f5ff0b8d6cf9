"""Parts of `hydra/launcher=ray` that need no cluster; tests/cluster has the others."""

import json
import os
import sys
from types import SimpleNamespace

import pytest
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf

from tests.helpers.records import record
from xlora_bench.runs import parcel, sent_attempts
from xlora_bench.runs.claim import AtHomeError
from xlora_bench.runs.parcel import packed
from xlora_bench.runs.record import Record
from xlora_bench.runs.run import attempts_folder
from xlora_bench.runs.sent_attempts import keep_attempt, kept_numbers
from xlora_bench.sweeps.launchers import ray_tasks
from xlora_bench.sweeps.launchers.launcher import failed
from xlora_bench.sweeps.launchers.ray_node import (
    AttemptKeeper,
    AttemptSender,
    Home,
    NewRun,
    Result,
    Sent,
    new_runs,
    remove_earlier_runs,
)
from xlora_bench.sweeps.launchers.ray_tasks import RayLauncher, RayTasks

EARLY, LATE = "2026-01-01T00:00:00+00:00", "2026-01-02T00:00:00+00:00"


def write(folder, run_id, *, finished=EARLY, **known):
    path = folder / "runs" / run_id / "record.json"
    record(run_id, finished=finished, **known).write(path)
    return path


class FakeRay:
    """Keeps the arguments of each task; a task ends with what `results` has next."""

    def __init__(self):
        self.tasks, self.results, self.gpus, self.max_calls, self.options_given = [], [], (), None, {}

    def put(self, value):
        return dict(value) if isinstance(value, dict) else value

    def nodes(self):
        return [
            {"Alive": True, "Resources": {"CPU": 8.0, **({"GPU": float(gpus)} if gpus else {})}} for gpus in self.gpus
        ]

    def remote(self, *, max_calls):
        self.max_calls = max_calls
        return lambda _: self

    def is_initialized(self):
        return True

    def cluster_resources(self):
        return {"CPU": 8.0 * len(self.gpus), "GPU": float(sum(self.gpus))}

    def options(self, **given):
        self.options_given = given

        def start(*arguments):
            self.tasks.append(arguments)
            return len(self.tasks)

        return SimpleNamespace(remote=start)

    def wait(self, tasks, timeout):
        return tasks[:1], tasks[1:]

    def get(self, task):
        return self.results.pop(0)

    class exceptions:  # noqa: N801 - the name of Ray's module
        RayTaskError = RayError = ConnectionError


@pytest.fixture
def ray(monkeypatch):
    ray = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setattr(ray_tasks, "keeper", lambda home: None)
    return ray


def tasks_of(folder, gpus=0):
    sweep = SimpleNamespace(end=lambda job, job_return, **_: job_return)
    return RayTasks(sweep, Home.of(folder, False, "unused"), cpus=1, gpus=gpus)


def call(folder):
    hydra = {"overrides": {"task": []}, "sweep": {"dir": str(folder / "jobs"), "subdir": "0"}}
    return SimpleNamespace(sent=b"", number=0, config=OmegaConf.create({"hydra": hydra}))


def test_a_later_task_knows_the_runs_that_have_come_home(ray, tmp_path):
    home, node = tmp_path / "home", tmp_path / "node"
    write(home, "a")
    tasks = tasks_of(home)
    tasks.submit(0, call(home))
    new = {
        "a": NewRun(packed(write(node, "a", finished=LATE).parent), EARLY),  # rerun=true
        "b": NewRun(packed(write(node, "b").parent), None),
        "c": NewRun(packed(write(node, "c", status="failed").parent), None),
    }
    ray.results = [Result(job_return=JobReturn(status=JobStatus.COMPLETED), started=0, runs=new)]
    assert [index for index, _ in tasks.wait(None)] == [0]
    assert Record.read(home / "runs" / "a" / "record.json").finished == LATE
    tasks.submit(1, call(home))
    assert [task[3] for task in ray.tasks] == [{"a": EARLY}, {"a": LATE, "b": EARLY}]


@pytest.mark.parametrize(
    ("nodes", "gpus", "expected"), [((0, 1), 0.25, 0), ((0, 2), 1, 1), ((1, 1), 1, 0), ((4,), 0, 0), ((0,), 0, 0)]
)
def test_a_worker_is_kept_unless_its_next_task_may_get_another_gpu(ray, tmp_path, nodes, gpus, expected):
    ray.gpus = nodes
    tasks_of(tmp_path, gpus=gpus)
    assert ray.max_calls == expected


@pytest.mark.parametrize(("runs", "part"), [(1, 1.0), (2, 0.5), (3, 0.3333), (6, 0.1666), (8, 0.125)])
def test_as_many_runs_share_a_gpu_as_were_set(ray, tmp_path, runs, part):
    ray.gpus = (1, 1)
    tasks = launched(tmp_path, runs_per_device=runs)
    assert ray.options_given["num_gpus"] == part  # Ray counts in steps of .0001
    assert runs * round(part * 10_000) <= 10_000 < (runs + 1) * round(part * 10_000)
    assert tasks.slots == 2 * runs
    assert ray.options_given["num_cpus"] == 1


def launched(folder, **options):
    launcher = RayLauncher(**options)
    launcher._sweep = SimpleNamespace()
    return launcher.executor(OmegaConf.create({"paths": {"results_dir": str(folder)}}))


def test_a_gpu_that_is_not_there_or_has_two_sizes_is_refused(ray, tmp_path):
    ray.gpus = (0,)
    with pytest.raises(ValueError, match=r"runs_per_device` \(=2\) needs a GPU, and the Ray cluster has none: leave"):
        launched(tmp_path, runs_per_device=2)
    with pytest.raises(ValueError, match=r"runs_per_device` \(=2\) and `hydra.launcher.gpus` \(=0.25\) both set"):
        RayLauncher(runs_per_device=2, gpus=0.25)


@pytest.mark.parametrize("deleted", [False, True])
def test_a_task_gets_its_parent_from_home_as_long_as_it_is_there(ray, tmp_path, deleted):
    path = write(tmp_path, "parent")
    tasks = tasks_of(tmp_path)
    tasks.submit(0, call(tmp_path))
    content = packed(path.parent)
    if deleted:
        path.unlink()
    announced = json.dumps({"run_id": "child"}).encode()
    ray.results = [Result(job_return=failed([AtHomeError("parent")]), started=0, announced=announced)]
    assert tasks.wait(None) == []
    assert [task[3:] for task in ray.tasks] == [
        ({"parent": EARLY}, Sent()),
        ({}, Sent(attempts={"parent": None})) if deleted else ({"parent": EARLY}, Sent(runs={"parent": content})),
    ]


def test_a_task_gets_all_that_it_has_asked_for_one_after_another(ray, tmp_path):
    content = packed(write(tmp_path, "parent").parent)
    for run_id, number in (("child", 3), ("child", 5), ("other", 1)):
        keep_attempt(f"{run_id} {number}".encode(), attempts_folder(tmp_path / "runs" / run_id), number)
    tasks = tasks_of(tmp_path)
    tasks.submit(0, call(tmp_path))
    announced = json.dumps({"run_id": "child"}).encode()
    for run_id in ("child", "parent"):
        ray.results = [Result(job_return=failed([AtHomeError(run_id)]), started=0, announced=announced)]
        assert tasks.wait(None) == []
    kept, attempts = {"child": 5, "other": 1}, {"child": (5, b"child 5")}
    assert [task[4] for task in ray.tasks] == [
        Sent(kept=kept),
        Sent(kept=kept, attempts=attempts),
        Sent(kept=kept, attempts=attempts, runs={"parent": content}),
    ]


def test_a_task_whose_attempt_is_gone_or_cannot_be_read_is_not_asked_for_ever(ray, tmp_path, monkeypatch):
    keep_attempt(b"child", attempts_folder(tmp_path / "runs" / "child"), 3)
    tasks, kept = tasks_of(tmp_path), {"child": 3}
    tasks.submit(0, call(tmp_path))

    def ask():
        ray.results = [Result(job_return=failed([AtHomeError("child")]), started=0)]
        assert tasks.wait(None) == []
        return ray.tasks[-1][4]

    def fails(error):
        def read(folder):
            raise error

        monkeypatch.setattr(ray_tasks, "newest_attempt", read)

    fails(FileNotFoundError())  # a later one takes its place
    assert ask() == Sent(kept=kept)
    fails(PermissionError())
    assert ask() == Sent(kept=kept, attempts={"child": None})
    monkeypatch.setattr(ray_tasks, "newest_attempt", parcel.newest_attempt)
    assert ask() == Sent(kept=kept, attempts={"child": (3, b"child")})


@pytest.fixture
def attempt(tmp_path):
    """The attempt 7 at the run `a` on a node, which has 1000 bytes."""
    path = tmp_path / "node" / "attempts" / "a" / "7"
    (path / "checkpoint").mkdir(parents=True)
    (path / "checkpoint" / "last.ckpt").write_bytes(b"0" * 1000)
    return path


def test_an_attempt_comes_home_unless_it_is_too_large_or_its_run_has_ended(ray, tmp_path, monkeypatch, attempt):
    home = Home.of(tmp_path / "home", False, "unused")
    at_home = attempts_folder(home.folder_of("a"))
    keep = AttemptKeeper(home).keep
    for most, expected in ((999, []), (1000, [7])):
        monkeypatch.setattr(sent_attempts, "MOST_BYTES", most)
        AttemptSender(SimpleNamespace(keep=SimpleNamespace(remote=keep)))(attempt)
        assert kept_numbers(at_home) == expected
    assert home.attempts() == {"a": 7}
    for status, expected in (("failed", [7]), ("completed", [])):
        (at_home / "7.tar").unlink()
        write(tmp_path / "home", "a", status=status, attempt=99)  # the clocks of two machines differ
        keep("a", 7, b"")
        assert kept_numbers(at_home) == expected


def test_an_attempt_in_a_folder_at_home_is_known_to_the_nodes(tmp_path):
    home = Home.of(tmp_path, False, "unused")
    keep_attempt(b"earlier", attempts_folder(home.folder_of("a")), 5)
    (attempts_folder(home.folder_of("a")) / "8" / "checkpoint").mkdir(parents=True)
    (attempts_folder(home.folder_of("a")) / "8" / "checkpoint" / "last.ckpt").write_bytes(b"epoch 18")
    attempts_folder(home.folder_of("b")).mkdir()
    assert home.attempts() == {"a": 8}
    number, content = parcel.newest_attempt(home.folder_of("a"))
    assert number == 8
    assert b"epoch 18" in content
    assert parcel.newest_attempt(home.folder_of("b")) is None


def test_no_error_in_sending_ends_the_run_and_one_attempt_at_a_time_is_on_its_way(ray, attempt, caplog, monkeypatch):
    calls, arrived = [], []
    monkeypatch.setattr(ray, "wait", lambda tasks, timeout: (arrived, tasks))
    sender = AttemptSender(SimpleNamespace(keep=SimpleNamespace(remote=lambda *given: calls.append(given) or "sent")))
    for _ in range(3):
        sender(attempt)
    assert len(calls) == 1
    arrived.append("sent")
    sender(attempt)
    assert len(calls) == 2

    def full(*_):
        raise RuntimeError("the object store is full")

    AttemptSender(SimpleNamespace(keep=SimpleNamespace(remote=full)))(attempt)
    assert "the checkpoint of run a is not sent: RuntimeError: the object store is full" in caplog.text


def test_a_task_sends_its_run_and_the_parents_that_are_not_at_home(tmp_path):
    write(tmp_path, "child", hashes={"parent": "parent"})
    write(tmp_path, "parent", hashes={"parent": "grandparent"})
    write(tmp_path, "grandparent", hashes={"parent": "first"})
    write(tmp_path, "first")
    write(tmp_path, "other")  # of another task on this node
    new = new_runs(tmp_path, "child", {"child": LATE, "grandparent": EARLY})
    assert {run_id: run.replaces for run_id, run in new.items()} == {"child": LATE, "parent": None}
    assert new["parent"].content == packed(tmp_path / "runs" / "parent")
    assert new_runs(tmp_path, "child", {"child": EARLY}) == {}
    assert new_runs(tmp_path, "absent", {}) == new_runs(tmp_path, None, {}) == {}


def test_a_node_deletes_the_runs_that_came_home_before_this_sweep(tmp_path):
    node, home = tmp_path / "node", Home.of(tmp_path / "home", False, "unused")
    old = {name: write(node, name) for name in ("home", "lost")}
    for path in old.values():
        os.utime(path, (0, 0))
    remove_earlier_runs(node, home, {"home": EARLY})
    assert not old["home"].parent.exists()
    assert old["lost"].exists()  # its task ended after the sweep did: it is sent when it is asked for
    new = write(node, "home")
    remove_earlier_runs(node, home, {"home": EARLY})
    assert new.exists()
