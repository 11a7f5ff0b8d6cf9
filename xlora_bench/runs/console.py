"""The terminal."""

from rich.console import Console

WIDTH_WITHOUT_TERMINAL = 140


def console(*, error: bool = False) -> Console:
    """Return a console; in a log file it is wide enough for a table."""
    terminal = Console(stderr=error)
    return terminal if terminal.is_terminal else Console(stderr=error, width=WIDTH_WITHOUT_TERMINAL)
