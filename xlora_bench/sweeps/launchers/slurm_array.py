"""An array of jobs in Slurm, and the commands of Slurm."""

import getpass
import json
import logging
import secrets
import shutil
import subprocess
from pathlib import Path

from xlora_bench.system.io import write_atomically

log = logging.getLogger(__name__)

COMMANDS = ("sbatch", "squeue", "scancel")
PATIENCE = 3
"""Questions in a row that Slurm leaves without an answer before a line says so."""
ANSWER_SECONDS = 120


class Array:
    """An array of jobs in Slurm.

    The file `path` has its job name, which no other array has, before it is submitted, and its id afterwards. So a
    process that is killed in between can come back to it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._unanswered = 0

    @property
    def id(self) -> str | None:
        """The id of the array; None if there is none, or it is not known yet."""
        return self._content().get("id")

    def _content(self) -> dict[str, str]:
        try:
            content: dict[str, str] = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return content

    def submit(self, script: Path, *, name: str) -> None:
        """Submit a batch script with a job name that begins with `name`, and keep its id."""
        name = f"{name}-{secrets.token_hex(4)}"
        write_atomically(self.path, json.dumps({"name": name}))
        answer = slurm("sbatch", "--parsable", f"--job-name={name}", str(script))
        write_atomically(self.path, json.dumps({"name": name, "id": answer.strip().partition(";")[0]}))

    def end(self) -> None:
        """Cancel the tasks that are left: a later start of the same runs must not take them for its own."""
        if self.id is None:  # another process has
            return
        try:
            slurm("scancel", self.id)
        except ValueError as error:
            log.warning("%s", error)
        self.path.unlink(missing_ok=True)

    def is_active(self) -> bool:
        """Return whether a task of it waits or runs; True if Slurm does not answer: the job files tell."""
        try:
            active = self.tasks() > 0
        except ValueError as error:
            self._unanswered += 1
            if self._unanswered == PATIENCE:
                log.warning(
                    "%s (%s times in a row); array %s may still run, so this command waits for its runs; Ctrl-C ends "
                    "only this command",
                    *(error, PATIENCE, self.id),
                )
            return True
        self._unanswered = 0
        return active

    def tasks(self) -> int:
        """Return the number of its tasks that wait or run.

        Raises:
            ValueError: if Slurm does not answer.
        """
        content = self._content()
        if not content:
            return 0
        own, name = content.get("id"), content.get("name")
        lines = slurm("squeue", "--noheader", "--array", f"--user={getpass.getuser()}", "--format=%F %A %T %j")
        queued = [line.strip().split(maxsplit=3) for line in lines.splitlines()]
        tasks = [task for task in queued if own in task[:2] or [name] == task[3:]]
        if own is None and tasks:  # the process that submitted it was killed before it had the id
            write_atomically(self.path, json.dumps({"name": name, "id": tasks[0][0]}))
        return sum(task[2] not in ENDED for task in tasks)


ENDED = ("COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "OUT_OF_MEMORY", "DEADLINE", "BOOT_FAIL")
"""States of a task that never runs again."""


def check_commands() -> None:
    """Raise a ValueError unless the commands of Slurm are on this machine."""
    for name in COMMANDS:
        if shutil.which(name) is None:
            raise ValueError(
                f"`hydra/launcher` (=slurm) needs Slurm: there is no command `{name}` on this machine; start the sweep "
                "on a login node, or take hydra/launcher=parallel"
            )


def slurm(*words: str) -> str:
    """Return what a command of Slurm prints.

    Raises:
        ValueError: if it fails, or does not answer in time.
    """
    try:
        done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=ANSWER_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ValueError(f"`hydra/launcher` (=slurm): {words[0]} failed: {error}") from None
    if done.returncode:
        reason = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise ValueError(f"`hydra/launcher` (=slurm): {words[0]} failed: {reason}; see the keys of hydra.launcher")
    return done.stdout
