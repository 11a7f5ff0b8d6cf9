"""Errors of the command line: one line instead of a traceback, and the exit code."""

import difflib
import errno
import logging
import os
import re
import sys
from collections.abc import Callable

from hydra.errors import HydraException
from omegaconf.errors import ConfigAttributeError, ConfigKeyError

from xlora_bench.cli.exit_codes import FAILED, INTERRUPTED, REFUSED
from xlora_bench.system.escape import terminal
from xlora_bench.system.options import near

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
    sys.stderr.write(f"{terminal(line)}\n")
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
    if isinstance(error, HydraException):
        return hydra_message(error)
    if str(error).startswith("Config group override must be"):
        return "a config group takes the name of one of its choices, and null is none; `xlora-bench --help` lists them"
    if isinstance(error, OSError) and error.filename:
        return (
            f"{error.filename} cannot be used ({error.strerror}); choose another folder with paths.results_dir=DIR; "
            "`xlora-bench table DIR --out OUT` gives the table of recorded runs"
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"{error.strerror}, below paths.results_dir or Hydra's own folder; make room and give the command again"
    return str(error) or repr(error)


def hydra_message(error: HydraException) -> str:
    """Return an error of Hydra as one line."""
    text, kind, reason = str(error), type(error).__name__, error.__cause__
    if isinstance(reason, ConfigKeyError | ConfigAttributeError) and reason.full_key:
        text = unknown_key(reason)
    elif kind == "ConfigCompositionException" and reason is not None:
        text = f"{text.splitlines()[0]} {str(reason).splitlines()[0]}; `--cfg job` shows every key"
    elif kind == "MissingConfigException":
        text = unknown_choice(text)
    elif kind == "OverrideParseException":
        override = getattr(error, "override", None)
        where = f"`{override}` cannot be read: " if override and override not in text.splitlines()[0] else ""
        text = f"{where}{text.splitlines()[0]}; an override is key=value, in quotes if it has spaces or brackets"
    elif several := re.match(r"Ambiguous value for argument '([^=]+)=(.*)'", text):
        key, values = several.groups()
        text = f"`{key}={values}` has several values: add -m to sweep over them; a list is {key}=[{values}]"
    return " ".join(text.split())


def unknown_key(error: ConfigKeyError | ConfigAttributeError) -> str:
    """Return the line for an override of a key that the config does not have."""
    known = [str(key) for key in error.parent_node or ()]
    hint = near(error.key, known) if known else f"this mapping is empty: add a key with +{error.full_key}=VALUE"
    return f"`{error.full_key}` is not a key of the config; {hint}"


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
