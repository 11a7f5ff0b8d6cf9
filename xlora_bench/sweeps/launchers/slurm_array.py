"""An array of jobs in Slurm, and the commands of Slurm."""

import getpass
import json
import logging
import shutil
import subprocess
from pathlib import Path

from xlora_bench.system.io import write_atomically

log = logging.getLogger(__name__)


class Array:
    """An array of jobs in Slurm, whose id is in the file `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def id(self) -> str | None:
        """The id of the array; None if there is none."""
        try:
            return str(json.loads(self.path.read_text(encoding="utf-8"))["id"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def submit(self, script: Path) -> None:
        """Submit a batch script, and keep its id."""
        answer = slurm("sbatch", "--parsable", str(script))
        write_atomically(self.path, json.dumps({"id": answer.strip().partition(";")[0]}))

    def end(self) -> None:
        """Cancel the tasks that are left: a later start of the same runs must not take them for its own."""
        if self.id is None:  # another process has
            return
        try:
            slurm("scancel", self.id)
        except ValueError as error:
            log.warning("%s", error)
        self.path.unlink(missing_ok=True)

    def tasks(self) -> int:
        """Return the number of its tasks that wait or run."""
        if self.id is None:
            return 0
        try:
            states = slurm(
                "squeue", "--noheader", "--array", f"--user={getpass.getuser()}", "--format=%A %F %T"
            ).splitlines()
        except ValueError as error:  # the controller does not answer for a moment: the job files tell
            log.warning("%s", error)
            return 1
        return sum(self.id in words.split()[:2] and not words.endswith(ENDED) for words in states)


ENDED = ("COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "OUT_OF_MEMORY", "DEADLINE", "BOOT_FAIL")
"""States of a task that never runs again."""


def slurm(*words: str) -> str:
    """Return what a command of Slurm prints.

    Raises:
        ValueError: if there is no such command, or it fails.
    """
    if shutil.which(words[0]) is None:
        raise ValueError(
            f"`hydra/launcher` (=slurm) needs Slurm: there is no command `{words[0]}` on this machine; start the sweep "
            "on a login node, or take hydra/launcher=parallel"
        )
    done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=120)
    if done.returncode:
        reason = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise ValueError(f"`hydra/launcher` (=slurm): {words[0]} failed: {reason}; see the keys of hydra.launcher")
    return done.stdout
