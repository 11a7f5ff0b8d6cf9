"""State of a file lock, seen from outside."""

import fcntl
from pathlib import Path


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock file `path` (`filelock.FileLock`); the file is only opened for reading.

    A shared lock is tried for an instant. It needs no write access, unlike an exclusive one, which `FileLock` takes.
    """
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
