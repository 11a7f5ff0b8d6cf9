"""Run many command lines in one process: `python -m tests.many` reads a JSON list of argument lists from stdin.

Prints, for each, its exit code and what it wrote to stderr. Importing everything anew for each would take seconds.
"""

import contextlib
import io
import json
import sys

from xlora_bench.cli.main import main


def outcome(arguments: list[str]) -> tuple[int, str]:
    """Return exit code and stderr of the main job."""
    sys.argv, said, code = ["xlora_bench", *arguments], io.StringIO(), 0
    with contextlib.redirect_stderr(said):
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
    return code, said.getvalue()


if __name__ == "__main__":
    answers = [outcome(arguments) for arguments in json.load(sys.stdin)]
    sys.stdout.write(json.dumps(answers))
