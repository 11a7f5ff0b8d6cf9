"""Errors of the command line: one line instead of a traceback, and the exit code."""

import difflib
import logging
import os
import re
import sys
from collections.abc import Callable

from hydra.errors import HydraException

from xlora_bench.cli.exit_codes import FAILED, INTERRUPTED, REFUSED

STOPPED = "interrupted; the same command goes on from the last whole epoch"


class PastHydra(BaseException):
    """Carries the error of a single run past Hydra, which would print a line of its own before ours."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


def run_clearly(entry: Callable[[], object]) -> None:
    """Run a Hydra job; on an error print its message alone and exit (HYDRA_FULL_ERROR=1 shows the traceback)."""
    if os.environ.get("HYDRA_FULL_ERROR"):
        with_traceback(entry)
        return
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises instead of printing its own shortened traceback
    try:
        entry()
    except KeyboardInterrupt as stop:
        stop_with(str(stop) or STOPPED, INTERRUPTED)
    except PastHydra as carrier:
        stop_with(error_lines(carrier.error), code_of_run(carrier.error))
    except Exception as error:
        stop_with(error_lines(error), getattr(error, "exit_code", REFUSED))
    finally:
        del os.environ["HYDRA_FULL_ERROR"]


def with_traceback(entry: Callable[[], object]) -> None:
    """Run a Hydra job; raise the error of a single run as it was."""
    try:
        entry()
    except PastHydra as carrier:
        raise carrier.error from None


def stop_with(line: str, code: int) -> None:
    """Print one line to stderr and exit; the traceback goes to the log at level DEBUG."""
    logging.getLogger(__name__).debug("traceback", exc_info=True)
    sys.stderr.write(f"{line}\n")
    sys.exit(code)


def code_of_run(error: BaseException) -> int:
    """Return the exit code of a single run that raised `error`: a wrong option or folder, or else a failure."""
    return REFUSED if isinstance(error, HydraException | ValueError | OSError) else FAILED


def error_lines(error: BaseException) -> str:
    """Return the message of an error, each line of it a fault of its own."""
    return "\n".join(f"error: {line}" for line in message(error).splitlines())


def cause(error: BaseException) -> BaseException:
    """Return the cause of a Hydra instantiation error, else the error itself."""
    while type(error).__name__ == "InstantiationException" and error.__cause__ is not None:
        error = error.__cause__
    return error


def message(error: BaseException) -> str:
    """Return the message for the user: the cause of a Hydra instantiation error, the reason of an override error."""
    error = cause(error)
    if type(error).__name__ == "ConfigCompositionException" and error.__cause__ is not None:
        reason = str(error.__cause__).splitlines()[0]
        return f"{str(error).splitlines()[0]} {reason}; `--cfg job` shows every key"
    if type(error).__name__ == "MissingConfigException":
        return unknown_choice(str(error))
    if type(error).__name__ == "OverrideParseException":
        return f"{str(error).splitlines()[0]}; an override is key=value, in quotes if the value has spaces or brackets"
    if str(error).startswith("Config group override must be"):
        return "a config group takes the name of one of its choices, and null is none; `xlora-bench --help` lists them"
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename} cannot be used ({error.strerror}); choose another folder with paths.results_dir=DIR"
    return str(error) or repr(error)


def unknown_choice(text: str) -> str:
    """Return Hydra's text on a missing config as one line, with the choices of its group (without `_*`)."""
    wanted = re.search(r"Could not find '([\w/]+)/(\w*)'", text)
    if wanted is None:
        return f"{text.splitlines()[0]} `xlora-bench --help` lists the configs"
    group, choice = wanted.groups()
    options = [line.strip() for line in text.splitlines() if line.startswith("\t") and "=" not in line]
    known = [name for name in options if not name.startswith("_")]
    close = difflib.get_close_matches(choice, known, n=1)
    hint = f"did you mean `{close[0]}`? " if close else ""
    return f"`{group}` (={choice}) is not one of its choices; {hint}Available options in '{group}': {', '.join(known)}"
