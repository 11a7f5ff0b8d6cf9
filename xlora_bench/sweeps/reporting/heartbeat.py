"""Heartbeat of a sweep: a line on the runs under way, between the lines of the ended ones, whatever launches them."""

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from rich.control import Control
from rich.segment import ControlType
from rich.text import Text

from xlora_bench.runs.claim import holder_of
from xlora_bench.runs.console import console
from xlora_bench.runs.run import claim_path, last_attempt
from xlora_bench.sweeps.reporting.plan import Plan
from xlora_bench.sweeps.reporting.progress import duration
from xlora_bench.sweeps.reporting.run_states import progress_text

log = logging.getLogger(__name__)

DRAW_SECONDS = 1.0
"""Time between two drawings of the line on a terminal."""
LEAST_SECONDS, MOST_SECONDS, SHARE = 20.0, 600.0, 0.1
"""Elsewhere a line is printed after this share of the elapsed time, within these limits."""
SHOWN = 3
"""Runs under way that a line names."""
ERASE = Control((ControlType.ERASE_IN_LINE, 2), ControlType.CARRIAGE_RETURN)


class Heartbeat:
    """A thread that shows `line`, which returns the number of ended runs and a text, until `stop`.

    On a terminal it draws the text in one line, which the next line of the sweep replaces. Elsewhere it prints it when
    no run has ended since the last look.
    """

    def __init__(self, line: Callable[[], tuple[int, str]]) -> None:
        self._line = line
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread and remove its line from the terminal."""
        self._stopped.set()
        self._thread.join()
        erase_line()

    def _run(self) -> None:
        started, before = time.monotonic(), 0
        on_terminal = console().is_terminal
        while not self._stopped.wait(DRAW_SECONDS if on_terminal else pause(time.monotonic() - started)):
            try:
                ended, text = self._line()
            except Exception as error:  # a file that is just being replaced
                log.debug("no heartbeat: %s", error)
                continue
            if on_terminal:
                draw(text)
            elif ended == before:
                console().print(text, soft_wrap=True, markup=False, highlight=False)
            before = ended


def pause(elapsed: float) -> float:
    """Return the seconds to the next line of a sweep that has taken `elapsed` seconds so far."""
    return min(MOST_SECONDS, max(LEAST_SECONDS, SHARE * elapsed))


def draw(text: str) -> None:
    """Draw a text in the line of the cursor, shortened to the width of the terminal; the cursor stays at its start."""
    terminal = console()
    terminal.control(ERASE)
    terminal.print(Text(text, no_wrap=True, overflow="ellipsis"), end="")
    terminal.control(Control(ControlType.CARRIAGE_RETURN))


def erase_line() -> None:
    """Erase the line of the cursor, if the output is a terminal."""
    terminal = console()
    if terminal.is_terminal:
        terminal.control(ERASE)


class RunsUnderWay:
    """The runs of a sweep that a process trains now, from the `run.json` of its jobs and the attempts of the runs."""

    def __init__(self) -> None:
        self._overrides: dict[str, list[str]] = {}
        self._read: set[str] = set()

    def line(self, plan: Plan) -> tuple[int, str]:
        """Return the number of ended runs, and a text with it, the runs under way, and the elapsed time."""
        ended = sum(path.stem.isdecimal() for path in plan.jobs.glob("*.json"))
        under_way = [f"{name}: {progress or 'starting'}" for name, progress in self.progress(plan)]
        more = [f"{len(under_way) - SHOWN} more"] if len(under_way) > SHOWN else []
        parts = [
            f"{ended} of {len(plan.runs)} runs ended" if plan.runs else "the runs are being checked",
            "; ".join([*under_way[:SHOWN], *more]),
            f"elapsed {duration(time.time() - plan.started)}",
        ]
        return ended, " | ".join(part for part in parts if part)

    def progress(self, plan: Plan) -> Iterator[tuple[str, str]]:
        """Yield the varying overrides of each run under way, and how far it is (empty before its first step)."""
        for folder in (plan.jobs.parent, *(plan.results_dir / "slurm" / plan.name).glob("*/")):
            self._read_new(folder)
        for path in sorted((plan.results_dir / "attempts").glob("*/")):
            folder, overrides = plan.results_dir / "runs" / path.name, self._overrides.get(path.name)
            attempt = last_attempt(folder)
            if overrides is None or attempt is None or holder_of(claim_path(folder)) is None:
                continue
            shown = [line for line in overrides if line.partition("=")[0] in plan.shown]
            yield " ".join(shown) or path.name, progress_text(attempt)

    def _read_new(self, folder: Path) -> None:
        """Read the `run.json` of each job in a folder that was not read before."""
        with suppress(FileNotFoundError):
            for job in os.scandir(folder):
                if not job.name.isdecimal() or job.path in self._read:
                    continue
                with suppress(OSError, ValueError, KeyError):  # not there yet, or being written
                    content = json.loads(Path(job.path, "run.json").read_text(encoding="utf-8"))
                    self._overrides[content["run_id"]] = content["overrides"]
                    self._read.add(job.path)
