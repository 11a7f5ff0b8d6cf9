"""The program `xlora-bench`: a subcommand, or else the main job."""

import difflib
import gc
import os
import sys
import warnings
from importlib import import_module

from xlora_bench.cli.exit_codes import INTERRUPTED, REFUSED
from xlora_bench.system.escape import terminal

SUBCOMMANDS = (
    *("archive", "check", "compare", "diff", "evaluate", "help", "report", "retry", "spectrum", "status", "table"),
    *("verify", "version", "wandb-view"),
)
COLLECT_AFTER = 100_000
"""New objects after which Python looks for garbage; its default, 700, takes a tenth of the time of a large table."""


def main() -> None:
    """Run a subcommand, or else the main job; `--dry-run` lists the runs of a sweep and their costs."""
    warnings.filterwarnings("ignore", category=UserWarning, module="hydra")
    make_working_folder_importable()
    command, rest = command_of(sys.argv[1:])
    try:
        if command is not None:
            gc.set_threshold(COLLECT_AFTER, 20, 100)
            sys.exit(import_module(f"xlora_bench.cli.{command.replace('-', '_')}").main(rest))
        sys.argv[1:] = arguments(rest)
        run_main_job()
    except KeyboardInterrupt as stop:
        if os.environ.get("HYDRA_FULL_ERROR"):
            raise
        sys.stderr.write(f"{str(stop) or 'interrupted'}\n")
        sys.exit(INTERRUPTED)


def run_main_job() -> None:
    """Run the main job on `sys.argv`."""
    from xlora_bench.cli.errors import run_clearly  # noqa: PLC0415 - slow to import; --help must answer at once
    from xlora_bench.cli.train import job  # noqa: PLC0415 - slow to import, as above
    from xlora_bench.runs.hydra_internals import option_problem  # noqa: PLC0415 - slow to import, as above
    from xlora_bench.runs.plain_config import refuse_environment_in  # noqa: PLC0415 - slow to import, as above
    from xlora_bench.system.checked_logging import check_logging_configs  # noqa: PLC0415 - slow to import, as above

    if problem := option_problem(sys.argv[1:]):
        refuse(f"{problem}; options first, then all overrides; `xlora-bench --help` lists both")
    run_clearly(lambda: refuse_environment_in(sys.argv[1:]))
    check_logging_configs()
    run_clearly(job)


def command_of(words: list[str]) -> tuple[str | None, list[str]]:
    """Return the subcommand of a command line (None: the main job) and the other words."""
    first = words[0] if words else ""
    if first in SUBCOMMANDS:
        return first, words[1:]
    if first.replace("-", "_").isidentifier() and not first.startswith("-"):
        close = difflib.get_close_matches(first, SUBCOMMANDS, n=1)
        hint = f"did you mean `{close[0]}`?" if close else "`xlora-bench --help` lists them; an override is key=value"
        refuse(f"`{first}` is not a command; {hint}")
    if {"--help", "-h"} & set(words):
        return "help", []
    return ("version", ["--short"]) if "--version" in words else (None, words)


def refuse(line: str) -> None:
    """Print what is wrong with the command line, and exit."""
    sys.stderr.write(f"error: {terminal(line)}\n")
    sys.exit(REFUSED)


def make_working_folder_importable() -> None:
    """Put the working folder on `sys.path`, as `python -m` does: configs may name classes of a module there."""
    if not sys.flags.safe_path and not {"", os.getcwd()} & set(sys.path):
        sys.path.insert(0, os.getcwd())


def arguments(arguments: list[str]) -> list[str]:
    """Return the arguments for Hydra: replace `--dry-run` by its sweeper, and quote the elements of `start_from`.

    `experiment=NAME` becomes `--config-name experiment/NAME`.
    """
    from xlora_bench.runs.overrides import quoted  # noqa: PLC0415 - slow to import, as above

    arguments = with_experiment(arguments)
    rest = [quoted(argument) for argument in arguments if argument != "--dry-run"]
    if len(rest) == len(arguments):
        return rest
    first = next(
        (location for location, word in enumerate(rest) if "=" in word and not word.startswith("-")), len(rest)
    )
    return ["--multirun", *rest[:first], "hydra/sweeper=dry_run", *rest[first:]]  # Hydra: overrides in one block


def with_experiment(arguments: list[str]) -> list[str]:
    """Return the arguments with the config name for `experiment=NAME`; refuse the name of no experiment."""
    named = [argument for argument in arguments if argument.startswith("experiment=")]
    if not named:
        return arguments
    from xlora_bench.cli.help import choices  # noqa: PLC0415 - not needed otherwise

    name = named[-1].partition("=")[2]
    if len(named) > 1 or name not in choices("experiment"):
        refuse(f"`experiment` (={name}) must be one of {', '.join(choices('experiment'))}")
    return ["--config-name", f"experiment/{name}", *(argument for argument in arguments if argument not in named)]
