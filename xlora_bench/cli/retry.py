"""`xlora-bench retry [DIR] [OVERRIDE ...]`: train the failed runs of a results folder again."""

import sys
from collections.abc import Sequence
from pathlib import Path

from xlora_bench.cli.exit_codes import COLLAPSED, FAILED, INTERRUPTED, REFUSED
from xlora_bench.cli.parser import Parser
from xlora_bench.cli.status import states_of, table_of
from xlora_bench.runs.command_line import CommandLine
from xlora_bench.runs.console import console
from xlora_bench.runs.overrides import as_text
from xlora_bench.sweeps.planning.run_list import check_single, write_run_list
from xlora_bench.sweeps.reporting.run_states import RunState, overrides_to_repeat

ABOUT = """\
Train the failed runs of a results folder again, all of its sweeps together, each with the overrides and the primary
config that it had. The command of a sweep does this too: a failed run, unlike a completed or a collapsed one, is always
trained again when it is asked for. `retry` leaves planned and interrupted runs alone, and needs no command line."""

WORST_FIRST = (INTERRUPTED, REFUSED, FAILED, COLLAPSED, 0)
"""Exit codes, by which that of several sweeps is chosen."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Train the failed runs again, a sweep per primary config; return the exit code."""
    parser = Parser(prog="xlora-bench retry", description=ABOUT)
    parser.add_argument("words", nargs="*", metavar="[DIR] [OVERRIDE ...]", help=HELP_OF_WORDS)
    parser.add_argument("--collapsed", action="store_true", help="also the runs that collapsed")
    parser.add_argument("--dry-run", action="store_true", help="list the runs, train none")
    options = parser.parse_intermixed_args(arguments)
    results_dir, overrides = split(options.words)
    try:
        check_single(overrides)
        runs = chosen(states_of(results_dir), collapsed=options.collapsed)
    except ValueError as error:
        parser.error(str(error))
    if not runs:
        say(f"no run in {results_dir} {'failed or collapsed' if options.collapsed else 'failed'}")
        return 0
    known = [run for run in runs if run.command_line is not None]
    if options.dry_run:
        console().print(table_of(known))
    if len(known) < len(runs):
        say(
            f"{len(runs) - len(known)} of them are left out: no command line in {results_dir}/hydra asked for them; "
            "a parent is trained again with the run that starts from it"
        )
    count = f"{len(known)} run{'s' * (len(known) != 1)}"
    say(f"{count} would be trained again" if options.dry_run else f"training {count} again")
    if options.dry_run or not known:
        return 0
    codes = [sweep_again(*group, results_dir=results_dir, overrides=overrides) for group in groups(known)]
    return next(code for code in WORST_FIRST if code in codes)


HELP_OF_WORDS = (
    "DIR is the results folder (default multirun); an OVERRIDE (key=value) is set in every run, such as "
    "hydra/launcher=parallel, or optimizer.lr=1e-3, which makes it another run"
)


def split(words: Sequence[str]) -> tuple[Path, list[str]]:
    """Return the results folder and the overrides of a command line; the folder is the first word without `=`."""
    folders = [word for word in words[:1] if "=" not in word or Path(word).is_dir()]
    return Path(folders[0] if folders else "multirun"), list(words[len(folders) :])


def chosen(runs: Sequence[RunState], *, collapsed: bool) -> list[RunState]:
    """Return the runs that failed, and with `collapsed` those that collapsed."""
    return [run for run in runs if run.state == "failed" or (collapsed and run.state == "collapsed")]


def groups(runs: Sequence[RunState]) -> list[tuple[CommandLine, list[RunState]]]:
    """Return the runs by command line: each of them is a sweep."""
    result: dict[CommandLine, list[RunState]] = {}
    for run in runs:
        assert run.command_line is not None
        result.setdefault(run.command_line, []).append(run)
    return list(result.items())


def sweep_again(
    command_line: CommandLine, runs: Sequence[RunState], *, results_dir: Path, overrides: Sequence[str]
) -> int:
    """Run a sweep of the given runs; return its exit code."""
    from xlora_bench.cli.main import run_main_job  # noqa: PLC0415 - main imports this module by name

    path = write_run_list([overrides_to_repeat(run) for run in runs], results_dir / "hydra" / "retry")
    lines = [f"hydra.sweeper.runs={as_text(str(path))}", f"paths.results_dir={as_text(str(results_dir))}"]
    sys.argv = ["xlora-bench", *command_line.words(), *lines, *overrides]
    try:
        run_main_job()
    except SystemExit as stop:
        if stop.code == INTERRUPTED:
            raise
        return int(stop.code or 0)
    return 0


def say(line: str) -> None:
    """Print a line."""
    console().print(line, soft_wrap=True, markup=False, highlight=False)
