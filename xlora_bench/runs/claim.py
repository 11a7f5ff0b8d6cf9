"""Claims: at most one process trains a run, on whatever machine that sees the results folder.

A claim is a lease: the file `claims/<id>` names its holder, who renews the file's modification time. Another process
may take it when the holder's process is gone (same host), or when it has watched the file for `SECONDS` without a
renewal. So two processes can believe that they hold a claim: one that was frozen, and the one that took over. That is
why each claim has an attempt folder of its own and a growing number; see `runs/run.py`.
"""

import socket
import time
from pathlib import Path
from typing import Self

import psutil
from filelock import SoftFileLease, Timeout

SECONDS = 60.0
"""Time without a renewal after which a claim may be taken. All processes that share a results folder must agree."""
PATIENCE = 3
"""Looks at a claim file, half a second apart, that must all name another holder before a claim counts as lost."""


class ClaimLostError(RuntimeError):
    """Another process has taken the claim of this one."""


class HeldError(RuntimeError):
    """Another process trains the run; `folder` is that of its results, `holder` names the process."""

    def __init__(self, folder: Path, holder: str) -> None:
        super().__init__(folder, holder)
        self.folder, self.holder = folder, holder

    def __str__(self) -> str:
        return f"run {self.folder.name} is trained by {self.holder}"


class AtHomeError(RuntimeError):
    """The run has a record, or a later attempt, in the results folder of the sweep, which this machine does not see."""

    def __init__(self, run_id: str) -> None:
        super().__init__(run_id)
        self.run_id = run_id


class Claim:
    """The right to train a run; released at the end of a `with` block."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lease = SoftFileLease(path, lease_duration=SECONDS, timeout=0, thread_local=False)
        self._seen: tuple[tuple[int, ...], float] | None = None

    def take(self) -> bool:
        """Take the claim; return False if another process holds it. Must be called again to notice a dead holder."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self._acquire():
            return True
        if self._unchanged_for() < SECONDS + SECONDS / 3:
            return False
        self._lease.force_break()  # filelock takes it over by exchanging names, which network file systems refuse
        return self._acquire()

    def wait(self) -> Self:
        """Take the claim, as soon as no other process holds it."""
        while not self.take():
            time.sleep(0.05)
        return self

    def _acquire(self) -> bool:
        try:
            self._lease.acquire()
        except Timeout:
            return False
        return True

    def _unchanged_for(self) -> float:
        """Return the seconds for which `take` has seen the same claim file, by this machine's clock."""
        now = time.monotonic()
        try:
            file = self.path.stat()
        except FileNotFoundError:
            self._seen = None
            return 0.0
        state = (file.st_mtime_ns, file.st_ctime_ns, file.st_ino)
        if self._seen is None or self._seen[0] != state:
            self._seen = state, now
        return now - self._seen[1]

    @property
    def holder(self) -> str:
        """The process that the claim file names, in words."""
        owner = self._lease.owner
        return "another process" if owner is None else f"process {owner.pid} on {owner.hostname}"

    def check(self) -> None:
        """Raise an error if the claim was lost.

        Raises:
            ClaimLostError: if the claim file names another process, or is gone.
        """
        for look in range(PATIENCE):
            if self._lease.is_lock_held_by_us:
                return
            time.sleep(0.5 * (look + 1 < PATIENCE))  # it is renamed for an instant while another process looks at it
        raise ClaimLostError(f"{self.holder} has taken over the run {self.path.name}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._lease.release()


def holder_of(path: Path) -> str | None:
    """Return the process that holds a claim, in words; None if there is no such file, or no one renews it."""
    owner = SoftFileLease(path, lease_duration=SECONDS).owner
    try:
        age = time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return None
    here = owner is not None and owner.hostname == socket.gethostname()
    if owner is None or age > SECONDS or (here and not psutil.pid_exists(owner.pid)):
        return None
    return f"process {owner.pid} on {owner.hostname}"
