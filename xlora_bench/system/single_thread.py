"""One thread for results that must not depend on the number of threads."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from threadpoolctl import ThreadpoolController


@contextmanager
def one_thread() -> Iterator[None]:
    """Run a `with` block on one thread of torch and of scipy's BLAS, so that the order of sums is fixed."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with controller().limit(limits=1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)


@cache
def controller() -> ThreadpoolController:
    """Return the thread controller of scipy's BLAS; scipy must be loaded before it is made."""
    import scipy.linalg  # noqa: F401, PLC0415 - slow to import

    return ThreadpoolController()
