"""Run several command lines in one process. `python -m tests.helpers.command_lines` reads them as JSON from stdin.

Prints, as JSON, the exit code of each, what it wrote to stderr, and the resident bytes after it. Importing everything
anew for each would take seconds.
"""

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from tests.helpers.names import ROOT


class Outcome(NamedTuple):
    """What a command line left."""

    code: int
    stderr: str
    resident: int

    @property
    def trained(self) -> bool:
        """Whether its runs ended: 3 says that all of them collapsed."""
        return self.code in (0, 3)

    @property
    def errors(self) -> str:
        """What it wrote to stderr but for warnings."""
        lines = self.stderr.splitlines(keepends=True)
        return "".join(line for line in lines if not line.startswith("warning: "))


def run_all(command_lines: Sequence[Sequence[str]], **where: Any) -> list[Outcome]:
    """Run them one after the other in a process of their own."""
    return start_all(command_lines, **where)()


def start_all(
    command_lines: Sequence[Sequence[str]], *, folder: Path = ROOT, **environment: str
) -> Callable[[], list[Outcome]]:
    """Start them in a process of their own; return what waits for their outcomes."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.helpers.command_lines"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)} | environment,
        text=True,
    )
    process.stdin.write(json.dumps([list(one) for one in command_lines]))
    process.stdin.close()

    def wait() -> list[Outcome]:
        printed = process.stdout.read()
        assert process.wait() == 0
        return [Outcome(*one) for one in json.loads(printed.splitlines()[-1])]

    return wait


def outcome(arguments: list[str]) -> Outcome:
    """Return what one command line left."""
    from xlora_bench.cli.main import main

    sys.argv, code = ["xlora_bench", *arguments], 0
    with contextlib.redirect_stderr(io.StringIO()) as stderr:
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
    return Outcome(code, stderr.getvalue(), psutil.Process().memory_info().rss)


if __name__ == "__main__":
    answers = [outcome(arguments) for arguments in json.load(sys.stdin)]
    sys.stdout.write("\n" + json.dumps(answers))
