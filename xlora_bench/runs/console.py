"""The rich console of this program."""

from rich.console import Console

WIDTH_WITHOUT_TERMINAL = 140


def console(*, error: bool = False) -> Console:
    """Return a console on stdout or stderr; without a terminal its width is `WIDTH_WITHOUT_TERMINAL` columns."""
    terminal = Console(stderr=error)
    return terminal if terminal.is_terminal else Console(stderr=error, width=WIDTH_WITHOUT_TERMINAL)
