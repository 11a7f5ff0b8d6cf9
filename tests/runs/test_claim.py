"""Claims: one holder at a time, those of dead processes are taken, and who lost one notices."""

import os
import subprocess
import sys
import time
from socket import gethostname

import pytest

from tests.helpers.names import ROOT
from xlora_bench.runs import claim
from xlora_bench.runs.claim import Claim, ClaimLostError, HeldError, holder_of

HOLD = """
import sys, time
from pathlib import Path
from xlora_bench.runs.claim import Claim
claim = Claim(Path(sys.argv[1]))
assert claim.take()
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture
def other(tmp_path):
    """A process that holds the claim `x`."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-c", HOLD, str(tmp_path / "claims" / "x")]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_one_holder_at_a_time_and_a_free_claim_leaves_no_file(tmp_path):
    path = tmp_path / "claims" / "x"
    first, second = Claim(path), Claim(path)
    assert first.take()
    with first:
        assert not second.take()
        assert second.holder == f"process {os.getpid()} on {gethostname()}"
        first.check()
    assert not path.exists()
    assert second.take()


@pytest.mark.process
def test_the_claim_of_a_dead_process_is_taken_at_once(tmp_path, other):
    path = tmp_path / "claims" / "x"
    mine = Claim(path)
    assert not mine.take()
    assert holder_of(path) == f"process {other.pid} on {gethostname()}"
    other.kill()
    other.wait()
    assert holder_of(path) is None
    assert mine.take()


@pytest.mark.process
def test_a_claim_without_renewals_is_taken_after_its_time_and_its_holder_notices(tmp_path, monkeypatch):
    monkeypatch.setattr(claim, "SECONDS", 0.5)
    path = tmp_path / "claims" / "x"
    frozen, awake = Claim(path), Claim(path)
    assert frozen.take()
    frozen._lease._stop_heartbeat()  # as in a process that was stopped
    started = time.monotonic()
    while not awake.take():
        time.sleep(0.05)
    assert time.monotonic() - started >= 0.5
    path.write_text(path.read_text().replace(f"pid={os.getpid()}", "pid=1"))  # here both holders are one process
    with pytest.raises(ClaimLostError, match=r"process 1 on .* has taken over the run x"):
        frozen.check()
    path.unlink()
    with pytest.raises(ClaimLostError, match="another process has taken over the run x"):
        frozen.check()


def test_a_file_that_no_one_renews_names_no_holder(tmp_path):
    path = tmp_path / "claims" / "x"
    mine = Claim(path)
    assert mine.take()
    assert holder_of(path) is not None
    os.utime(path, (time.time() - claim.SECONDS - 5,) * 2)
    assert holder_of(path) is None
    assert holder_of(tmp_path / "nothing") is None


def test_the_error_says_who_holds_the_run(tmp_path):
    error = HeldError(tmp_path / "runs" / "abc", "process 7 on node3")
    assert str(error) == "run abc is trained by process 7 on node3"
