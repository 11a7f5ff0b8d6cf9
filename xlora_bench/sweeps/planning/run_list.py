"""Run list: runs given one by one in a file (`hydra.sweeper.runs`) instead of a Cartesian product."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from xlora_bench.runs.overrides import as_lines, from_lines, parsed
from xlora_bench.sweeps.planning.jobs import PlannedRun
from xlora_bench.system.io import write_atomically


class RunList:
    """The single launch of the runs in the file `path`; the overrides `arguments` of the command line win.

    It stands in for `Phases`: rules and tuning were applied when the runs were planned.

    Raises:
        ValueError: if an argument is a list of values.
    """

    def __init__(self, path: Path, *, arguments: Sequence[str]) -> None:
        check_single(arguments)
        lines = [as_lines(from_lines([*run, *arguments])) for run in json.loads(path.read_text(encoding="utf-8"))]
        self.runs = [PlannedRun(overrides=tuple(run)) for run in dict.fromkeys(map(tuple, lines))]
        self.notes: list[str] = []

    def run(self, jobs: Path) -> Iterator[list[PlannedRun]]:
        """Yield the runs; `jobs` is not read."""
        yield self.runs


def check_single(arguments: Sequence[str]) -> None:
    """Raise a ValueError for an override that is a list of values: it would multiply runs that are given one by one."""
    for argument in arguments:
        if parsed(argument).is_sweep_override():
            raise ValueError(f"`{argument}` is a list of values; runs are repeated one by one: give one value")


def write_run_list(runs: Sequence[Sequence[str]], folder: Path) -> Path:
    """Write the overrides of runs to a file in `folder` that is named by its content; return its path."""
    text = json.dumps([list(run) for run in runs], indent=1) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{hashlib.sha256(text.encode()).hexdigest()[:8]}.json"
    write_atomically(path, text)
    return path
