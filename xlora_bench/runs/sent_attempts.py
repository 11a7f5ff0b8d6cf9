"""Attempts that travel: the files of an unfinished attempt, with its checkpoint, as one archive `<number>.tar`.

A machine that does not see the results folder sends one after each epoch. The archive lies beside the attempts of its
run, until an attempt begins that goes on from it.
"""

import io
import logging
import shutil
import tarfile
from pathlib import Path

from xlora_bench.system.io import write_atomically

log = logging.getLogger(__name__)

MOST_BYTES = 256 * 2**20
"""Largest attempt that travels."""
ENDING = ".tar"
COPY = ".copy"
"""Ending of the name of an attempt that is being copied."""


def packed_attempt(attempt: Path, *, leave_out: Path) -> bytes | None:
    """Return the files of an attempt as a tar archive, without the file `leave_out` and those that are being written.

    None if they are larger than `MOST_BYTES` together.

    Raises:
        OSError: if one cannot be read.
    """
    files = [path for path in sorted(attempt.rglob("*")) if path.is_file() and path != leave_out]
    files = [path for path in files if not (path.name.startswith(".") and path.suffix == ".tmp")]
    if sum(path.stat().st_size for path in files) > MOST_BYTES:
        return None
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path in files:
            archive.add(path, path.relative_to(attempt).as_posix())
    return buffer.getvalue()


def keep_attempt(content: bytes, attempts: Path, number: int) -> None:
    """Write a packed attempt into the folder of the attempts at its run; it replaces those with smaller numbers.

    Raises:
        OSError: if it cannot be written.
    """
    attempts.mkdir(parents=True, exist_ok=True)
    write_atomically(attempts / f"{number}{ENDING}", content)
    for older in kept_numbers(attempts)[:-1]:
        (attempts / f"{older}{ENDING}").unlink(missing_ok=True)


def kept_numbers(attempts: Path) -> list[int]:
    """Return the numbers of the packed attempts at a run, in rising order."""
    return sorted(int(path.stem) for path in attempts.glob(f"*{ENDING}") if path.stem.isdecimal())


def unpack_attempt(attempts: Path, number: int) -> bool:
    """Make an attempt of a packed one; return False, after a warning, if its archive is damaged."""
    archive, copied = attempts / f"{number}{ENDING}", attempts / f"{number}{COPY}"
    try:
        with tarfile.open(archive) as file:
            file.extractall(copied, filter="data")
        copied.rename(attempts / str(number))
    except (OSError, tarfile.TarError) as error:
        log.warning("%s cannot be unpacked (%s): this run starts over", archive, error)
        shutil.rmtree(copied, ignore_errors=True)
        return False
    return True
