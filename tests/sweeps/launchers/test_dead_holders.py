"""Runs whose holder is gone: on a file system that does not exchange names, and in a worker that does not wait."""

import os
import socket
import time

import filelock._soft
import pytest
from filelock import SoftFileLease

from xlora_bench.runs import claim as claims
from xlora_bench.runs.claim import Claim, HeldError
from xlora_bench.runs.run import claim_path
from xlora_bench.sweeps.launchers.schedule import run_calls


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder of a run that a process of a lost machine holds."""
    monkeypatch.setattr(claims, "SECONDS", 0.6)
    folder = tmp_path / "runs" / "abc"
    claim_path(folder).parent.mkdir(parents=True)
    lost(claim_path(folder))
    return folder


def lost(path):
    text = (
        f"filelock/2\npid={os.getpid()}\nhost=not-{socket.gethostname()}\nmode=lease\ntoken={'0' * 32}\nduration=0.6\n"
    )
    path.write_text(text)


class Worker:
    """A worker of Slurm's array, in this process."""

    slots = attempts = 1
    waits = False

    def submit(self, index, call):
        self.next = index, call

    def wait(self, timeout):
        if self.next is None:
            time.sleep((timeout or 0) / 10)
            return []
        (index, call), self.next = self.next, None
        return [(index, call())]


def asked(folder):
    """Return the call of a run: it takes the claim and is done, or is held."""

    def call():
        claim = Claim(claim_path(folder))
        if not claim.take():
            return HeldError(folder, "another")
        with claim:
            return "done"

    return call


@pytest.mark.parametrize("exchanges", [True, False])
def test_a_claim_of_a_lost_machine_is_taken_after_the_lease(folder, monkeypatch, exchanges):
    if not exchanges:  # as NFS, SMB and CephFS
        monkeypatch.setattr(filelock._soft, "exchange_names", lambda *_: False)
    claim, start = Claim(claim_path(folder)), time.monotonic()
    while not claim.take():
        assert time.monotonic() < start + 10
        time.sleep(0.02)
    assert time.monotonic() - start > 0.6
    with claim:
        claim.check()
    assert not claim_path(folder).exists()


def test_a_renewed_claim_is_not_broken_where_names_are_not_exchanged(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "SECONDS", 0.6)
    monkeypatch.setattr(filelock._soft, "exchange_names", lambda *_: False)
    held, other = Claim(tmp_path / "claims" / "a"), Claim(tmp_path / "claims" / "a")
    assert held.take()
    with held:
        start = time.monotonic()
        while time.monotonic() < start + 2:
            assert not other.take()
            time.sleep(0.02)
        held.check()


def test_a_worker_that_does_not_wait_takes_the_run_of_a_lost_machine(folder):
    assert list(run_calls(Worker(), [asked(folder)], names=["a"])) == [(0, "done")]


def test_a_worker_that_does_not_wait_leaves_a_run_that_is_trained(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "SECONDS", 3.0)
    folder, start = tmp_path / "runs" / "abc", time.monotonic()
    claim_path(folder).parent.mkdir(parents=True)
    with SoftFileLease(claim_path(folder), lease_duration=3.0, heartbeat_interval=0.2):
        assert not list(run_calls(Worker(), [asked(folder)], names=["a"]))
    assert time.monotonic() - start < 2
