"""The sweep whose job this process runs. It changes no number."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

_name: str | None = None
_started: float | None = None
_folder: Path | None = None
_held_runs_are_deferred = False
_ends_at_home: Mapping[str, str] = {}
_attempts_at_home: Mapping[str, int] = {}
_send_attempt: Callable[[Path], None] | None = None


def enter_sweep(name: str, *, started: float, folder: Path | None = None) -> None:
    """Set the sweep's name, by which W&B groups runs, its start and Hydra's folder of it; called when a job starts."""
    global _name, _started, _folder
    _name, _started, _folder = name, started, folder


def leave_sweep() -> None:
    """Clear name, time and folder; called when the job ends."""
    global _name, _started, _folder  # noqa: PLW0603 - as above
    _name = _started = _folder = None


def running_sweep() -> str | None:
    """Return the name of the sweep; None outside a sweep."""
    return _name


def sweep_started() -> float | None:
    """Return the time at which the sweep was started; None outside a sweep."""
    return _started


def sweep_folder() -> Path | None:
    """Return Hydra's folder of the sweep; None outside a sweep."""
    return _folder


@contextmanager
def deferring_held_runs() -> Iterator[None]:
    """In this block, a run that another process trains raises a `HeldError` instead of being waited for."""
    global _held_runs_are_deferred  # noqa: PLW0603 - as above
    _held_runs_are_deferred = True
    try:
        yield
    finally:
        _held_runs_are_deferred = False


def held_runs_are_deferred() -> bool:
    """Return whether the launcher of this job asks again for a run that another process trains."""
    return _held_runs_are_deferred


@contextmanager
def away_from_home(
    ends: Mapping[str, str], *, attempts: Mapping[str, int] | None = None, send: Callable[[Path], None] | None = None
) -> Iterator[None]:
    """In this block, the results folder is not that of the sweep.

    `ends` has the time `finished` of each finished record in the folder of the sweep, by run id, and `attempts` the
    numbers of the attempts that are kept there. `send` sends an attempt there.
    """
    global _ends_at_home, _attempts_at_home, _send_attempt
    _ends_at_home, _attempts_at_home, _send_attempt = ends, attempts or {}, send
    try:
        yield
    finally:
        _ends_at_home, _attempts_at_home, _send_attempt = {}, {}, None


def end_at_home(run_id: str) -> str | None:
    """Return the time `finished` of a run in the results folder of the sweep, if that is another folder than here.

    None: it has no finished record there.
    """
    return _ends_at_home.get(run_id)


def attempt_at_home(run_id: str) -> int:
    """Return the number of the attempt at a run that is kept in the results folder of the sweep; 0 if none is."""
    return _attempts_at_home.get(run_id, 0)


def checkpoint_written(attempt: Path) -> None:
    """Send an attempt, whose checkpoint is a new one, to the results folder of the sweep, if that is not here."""
    if _send_attempt is not None:
        _send_attempt(attempt)
