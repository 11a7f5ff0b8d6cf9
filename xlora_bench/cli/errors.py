"""Errors of the command line: one line instead of a traceback."""

import logging
import os
import sys
from collections.abc import Callable


def run_clearly(entry: Callable[[], object]) -> None:
    """Run a Hydra job; on an error print its message alone and exit with 1 (HYDRA_FULL_ERROR=1 shows the traceback)."""
    if os.environ.get("HYDRA_FULL_ERROR"):
        entry()
        return
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises instead of printing its own shortened traceback
    try:
        entry()
    except Exception as error:
        logging.getLogger(__name__).debug("traceback", exc_info=True)
        sys.stderr.write(f"error: {message(error)}\n")
        sys.exit(1)
    finally:
        del os.environ["HYDRA_FULL_ERROR"]


def message(error: BaseException) -> str:
    """Return the message for the user: the cause of a Hydra instantiation error, the reason of an override error."""
    while type(error).__name__ == "InstantiationException" and error.__cause__ is not None:
        error = error.__cause__
    if type(error).__name__ == "ConfigCompositionException" and error.__cause__ is not None:
        reason = str(error.__cause__).splitlines()[0]
        return f"{str(error).splitlines()[0]} {reason}; `--cfg job` shows every key"
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename} cannot be used ({error.strerror}); choose another folder with paths.results_dir=DIR"
    return str(error) or repr(error)
