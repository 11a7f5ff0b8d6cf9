"""Workers: what they compute comes back, errors as they were raised; one that dies is replaced."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from tests.helpers.names import ROOT
from xlora_bench.sweeps.launchers.placement import count_cores
from xlora_bench.sweeps.launchers.schedule import WorkerLostError, run_calls
from xlora_bench.sweeps.launchers.sent_errors import chained, portable
from xlora_bench.sweeps.launchers.workers import THREADS, Pool, WorkerSlot

pytestmark = [pytest.mark.slow, pytest.mark.process]

STARTED_HERE = []


class AwkwardError(Exception):
    """Cannot be read back from a pickle."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


def work(value, seconds=0.0):
    STARTED_HERE.append(value)
    time.sleep(seconds)
    return value, os.getpid(), len(STARTED_HERE)


def fail(error, cause=None):
    raise error from cause


def die(marker, attempts):
    with marker.open("a") as file:
        file.write(".")
    if len(marker.read_text()) <= attempts:
        os.kill(os.getpid(), signal.SIGKILL)
    return work("survived")


def here():
    cpus = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    return {name: os.environ[name] for name in THREADS}, cpus, os.environ.get("CUDA_VISIBLE_DEVICES")


@pytest.fixture(scope="module")
def pool():
    pool = Pool([WorkerSlot(threads=1)] * 2)
    yield pool
    pool.close()


def outcomes(pool, calls):
    return dict(run_calls(pool, calls, names=[str(index) for index in range(len(calls))]))


def test_values_come_back_by_index_from_processes_that_stay(pool):
    seconds = [2.0, *[0.01] * 5]
    first = outcomes(pool, [partial(work, index, wait) for index, wait in enumerate(seconds)])
    assert [first[index][0] for index in range(6)] == list(range(6))
    assert list(first)[-1] == 0  # yielded as they end
    assert len({pid for _, pid, _ in first.values()}) == 2
    again = outcomes(pool, [partial(work, 0)])
    assert again[0][1] in {pid for _, pid, _ in first.values()}
    assert again[0][2] > 1  # its module was there already


def test_an_error_is_the_one_that_was_raised_and_stops_no_other(pool):
    calls = [
        partial(fail, ValueError("on purpose"), KeyError("cause")),
        partial(fail_awkwardly),
        partial(work, 2),
    ]
    ended = outcomes(pool, calls)
    assert isinstance(ended[0], ValueError)
    assert str(ended[0]) == "on purpose"
    assert isinstance(ended[0].__cause__, KeyError)
    assert "in fail\n" in ended[0].__notes__[0]
    assert isinstance(ended[1], RuntimeError)
    assert str(ended[1]) == "AwkwardError: 1 and 2"
    assert ended[2][0] == 2


def fail_awkwardly():
    raise AwkwardError(1, 2)


def test_what_would_end_the_serial_run_ends_this_one(pool):
    with pytest.raises(KeyboardInterrupt):
        outcomes(pool, [partial(fail, KeyboardInterrupt())])
    assert outcomes(pool, [partial(work, 1)])[0][0] == 1


def test_a_killed_worker_is_replaced_and_its_job_tried_once_more(tmp_path, caplog):
    pool = Pool([WorkerSlot(threads=1)])
    try:
        calls = [partial(die, tmp_path / "once", 1), partial(die, tmp_path / "always", 9), partial(work, "next")]
        ended = outcomes(pool, calls)
    finally:
        pool.close()
    assert ended[0][0] == "survived"
    assert isinstance(ended[1], WorkerLostError)
    assert "hydra.launcher.workers=1" in str(ended[1])
    assert ended[2][0] == "next"
    assert [(tmp_path / name).read_text() for name in ("once", "always")] == ["..", ".."]
    assert [record.message.split(":")[0] for record in caplog.records] == ["0", "1", "1"]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system binds no processes")
def test_a_slot_holds_before_anything_is_imported():
    cpu = min(os.sched_getaffinity(0))
    before = dict(os.environ)
    pool = Pool([WorkerSlot(threads=3, cpus=frozenset({cpu}), device="7")])
    try:
        assert outcomes(pool, [here])[0] == (dict.fromkeys(THREADS, "3"), [cpu], "7")
    finally:
        pool.close()
    assert dict(os.environ) == before


def test_errors_keep_their_chain_in_one_process_too():
    error = ValueError("a")
    error.__cause__ = AwkwardError(1, 2)
    copy = chained(portable(error))
    assert (str(copy), str(copy.__cause__), copy.__cause__.__cause__) == ("a", "AwkwardError: 1 and 2", None)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")
def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    program = (
        "import time; from functools import partial\n"
        "from tests.sweeps.launchers.test_workers import Pool, WorkerSlot, report, run_calls\n"
        f"list(run_calls(Pool([WorkerSlot(threads=1)]), [partial(report, {str(tmp_path / 'pid')!r})], names=['it']))"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT)
    while not (tmp_path / "pid").exists() or not (pid := (tmp_path / "pid").read_text()):
        assert parent.poll() is None
        time.sleep(0.02)
    parent.kill()
    parent.wait()
    until = time.monotonic() + 10
    while running(pid):
        assert time.monotonic() < until
        time.sleep(0.02)


def report(path):
    Path(path).write_text(str(os.getpid()))
    time.sleep(60)


def running(pid):
    """Whether the process runs; a zombie, whose new parent has not looked yet, does not."""
    try:
        return "(zombie)" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def test_there_is_a_core():
    assert count_cores() >= 1


FORKED = """
import os
from tests.sweeps.launchers.test_workers import loaded
from xlora_bench.sweeps.launchers.schedule import run_calls
from xlora_bench.sweeps.launchers.workers import Pool, WorkerSlot, start_fork_server

start_fork_server()
os.environ["SET_LATER"] = "yes"
pool = Pool([WorkerSlot(threads=2), WorkerSlot(threads=1)])
print(sorted(outcome for _, outcome in run_calls(pool, [loaded, loaded], names=["a", "b"])))
pool.close()
"""


def loaded():
    time.sleep(0.5)  # so that each worker has one
    modules = [name for name in ("xlora_bench.training.train", "lightning", "torch") if name in sys.modules]
    return sys.modules["torch"].get_num_threads(), modules, os.environ["SET_LATER"], os.environ["OMP_NUM_THREADS"]


@pytest.mark.skipif(sys.platform != "linux", reason="workers are spawned")
def test_forked_workers_have_what_a_run_needs_and_threads_of_their_own():
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", FORKED], check=False, env=environment, cwd=ROOT, capture_output=True, text=True
    )
    modules = ["xlora_bench.training.train", "lightning", "torch"]
    assert done.stdout.strip() == str([(threads, modules, "yes", str(threads)) for threads in (1, 2)]), done.stderr
