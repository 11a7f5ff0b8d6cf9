"""Number of threads for results that depend on it."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from threadpoolctl import ThreadpoolController


@contextmanager
def threads(number: int | None) -> Iterator[None]:
    """Set the number of torch threads within a `with` block (None: unchanged)."""
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def one_thread() -> Iterator[None]:
    """Run a `with` block on one thread of torch and of scipy's BLAS, so that the order of sums is fixed."""
    with threads(1), controller().limit(limits=1, user_api="blas"):
        yield


@cache
def controller() -> ThreadpoolController:
    """Return the thread controller of scipy's BLAS; scipy must be loaded before it is made."""
    import scipy.linalg  # noqa: F401, PLC0415 - slow to import

    return ThreadpoolController()
