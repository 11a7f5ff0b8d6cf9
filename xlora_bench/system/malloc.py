"""Freed memory is kept for the next tensors instead of being given back to the system, page by page."""

import ctypes
import sys
from functools import cache

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Of glibc's `malloc.h`."""
KEEP = 2**30
"""Bytes: more than any tensor of a step or of an evaluation's batch on a CPU."""


@cache
def keep_freed_memory() -> None:
    """Let glibc keep up to 1 GiB that was freed, and take tensors below that from it.

    By default it maps a tensor of 32 MiB or more anew and gives it back when it is freed, so that the system clears
    its pages each time: a tenth of an evaluation in big batches. Without glibc (macOS, musl) nothing is done.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_TRIM_THRESHOLD, KEEP)
        mallopt(M_MMAP_THRESHOLD, KEEP)
