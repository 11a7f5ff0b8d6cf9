"""`xlora-bench status [DIR]`: which runs are planned, running, interrupted, completed, collapsed, failed, and why."""

import argparse
import json
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from xlora_bench.cli.parser import Parser
from xlora_bench.runs.console import console
from xlora_bench.runs.record import damages, run_folder
from xlora_bench.sweeps.reporting.run_states import STATES, RunState, run_states, shown_keys, shown_overrides

ABOUT = """\
List the runs of a results folder. planned: a sweep has it still to train (or was stopped before it did); running: a
process trains it now; interrupted: it was stopped, and goes on when the same command is given again; collapsed: the
loss is not finite, or every prediction is the same; failed: an error stopped it, and the same command, or `xlora-bench
retry`, trains it again. No run is changed, and a read-only folder is fine. With --check, the files of each run are
compared with the hashes in its record; the exit code is 1 if one is missing or another one."""


WATCH_SECONDS = 2.0
SHOWN = 200
"""Runs in the table unless `--all` is given."""
SHOWN_FIRST = ("failed", "collapsed", "running", "interrupted", "planned", "completed")
"""The states of the runs that are in the table when there are more."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the counts and a table of the runs of a results folder; return the exit code."""
    parser = Parser(prog="xlora-bench status", description=ABOUT)
    add_results_dir(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object: results_dir, counts, runs")
    parser.add_argument("--all", action="store_true", help=f"list more than {SHOWN} runs")
    parser.add_argument("--watch", action="store_true", help=f"print it anew every {WATCH_SECONDS:g} s, until Ctrl-C")
    parser.add_argument("--check", action="store_true", help="compare the files of each run with its record")
    options = parser.parse_args(arguments)
    try:
        runs = states_of(options.results_dir)
    except ValueError as error:
        parser.error(str(error))
    if options.watch:
        return watch(options.results_dir)
    if options.json:
        console().print(as_json(runs, options.results_dir), soft_wrap=True, markup=False, highlight=False)
    else:
        say(runs, options.results_dir, at_most=len(runs) if options.all else SHOWN)
    return check(runs, options.results_dir) if options.check else 0


def watch(results_dir: Path) -> int:
    """Show the counts and the runs that are not completed, until Ctrl-C or all runs have ended; return the exit code.

    On a terminal the table is drawn anew; elsewhere the counts and the running runs are printed as lines.
    """
    terminal = console()
    with Live(console=terminal, auto_refresh=False, transient=False) if terminal.is_terminal else nullcontext() as live:
        while True:
            runs = states_of(results_dir)
            left = [run for run in runs if run.state not in ("completed", "collapsed", "failed")]
            listed = sorted(left, key=lambda run: SHOWN_FIRST.index(run.state))[:SHOWN]
            if live is not None:
                live.update(Group(Text(summary(runs, results_dir)), table_of(listed)), refresh=True)
            else:
                running = [f"{run.run_id}: {run.reason}" for run in listed if run.state == "running"]
                for line in (summary(runs, results_dir), *running):
                    terminal.print(line, soft_wrap=True, markup=False, highlight=False)
            if not left:
                return 0
            time.sleep(WATCH_SECONDS)


def check(runs: Sequence[RunState], results_dir: Path) -> int:
    """Print a line per damaged file, and how many were compared, to stderr; return the exit code."""
    records = [run.record for run in runs if run.record is not None]
    damaged = [line for record in records for line in damages(record, run_folder(results_dir, record.run_id))]
    compared, old = sum(len(record.files) for record in records), sum(not record.files for record in records)
    lines = [
        *damaged,
        f"{compared} files compared, {len(damaged)} damaged{'; rerun=true trains a run again' * bool(damaged)}",
    ]
    if old:
        lines.append(f"{old} of {len(records)} records hold no hashes: an older version wrote them, or the run failed")
    for line in lines:
        console(error=True).print(line, soft_wrap=True, markup=False, highlight=False)
    return 1 if damaged else 0


def add_results_dir(parser: argparse.ArgumentParser) -> None:
    """Add the positional argument of a results folder, `multirun` by default."""
    parser.add_argument(
        "results_dir", nargs="?", type=Path, default=Path("multirun"), help="a results folder (default multirun)"
    )


def states_of(results_dir: Path) -> list[RunState]:
    """Return the states of the runs of a folder.

    Raises:
        ValueError: if it is no folder.
    """
    if not results_dir.is_dir():
        raise ValueError(f"`{results_dir}` is not a folder; name the results folder of your runs (paths.results_dir)")
    return run_states(results_dir)


def say(runs: Sequence[RunState], results_dir: Path, *, at_most: int) -> None:
    """Print the counts, then a table of at most `at_most` runs, and how many more there are."""
    terminal = console()
    if not runs:
        terminal.print(f"no run in {results_dir} yet", soft_wrap=True, markup=False, highlight=False)
        return
    terminal.print(summary(runs, results_dir), soft_wrap=True, markup=False, highlight=False)
    listed = sorted(runs, key=lambda run: SHOWN_FIRST.index(run.state))[:at_most]
    terminal.print(table_of(listed))
    if len(listed) < len(runs):
        line = f"{len(runs) - len(listed)} more runs; --all lists them, --json prints them for programs"
        terminal.print(line, soft_wrap=True, markup=False, highlight=False)


def summary(runs: Sequence[RunState], results_dir: Path) -> str:
    """Return the number of runs in each state as a line of text; states without a run are left out."""
    counts = Counter(run.state for run in runs)
    parts = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
    return f"{len(runs)} run{'s' * (len(runs) != 1)} in {results_dir}: {parts}"


def table_of(runs: Sequence[RunState]) -> Table:
    """Return a table of runs in the order of `STATES`: state, the keys that vary, run id, score, reason."""
    keys = shown_keys(runs)
    table = Table()
    for name in ("state", *keys, "run"):
        table.add_column(name, no_wrap=name in ("state", "run"))
    table.add_column("score", justify="right")
    table.add_column("why", overflow="fold")
    for run in sorted(runs, key=lambda run: STATES.index(run.state)):
        score = f"{run.record.score:.4f}" if run.record and run.record.score is not None else ""
        texts = (run.state, *(run.value(key) for key in keys), run.run_id or "", score, first_line(run.reason))
        table.add_row(*map(Text, texts))
    return table


def as_json(runs: Sequence[RunState], results_dir: Path) -> str:
    """Return counts and runs as JSON."""
    counts, keys = Counter(run.state for run in runs), shown_keys(runs)
    listed = [
        {
            "state": run.state,
            "run_id": run.run_id,
            "overrides": shown_overrides(run, keys),
            "score": run.record.score if run.record else None,
            "reason": run.reason,
        }
        for run in runs
    ]
    content = {"results_dir": str(results_dir), "counts": {state: counts[state] for state in STATES}, "runs": listed}
    return json.dumps(content, indent=1)


def first_line(reason: str | None) -> str:
    """Return the first line of a reason."""
    return reason.splitlines()[0] if reason else ""
