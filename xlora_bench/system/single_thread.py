"""One thread for what must not depend on how many there are."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from threadpoolctl import ThreadpoolController


@contextmanager
def one_thread() -> Iterator[None]:
    """Run a `with` block on one thread of torch and of scipy's BLAS, so that sums are always taken in one order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with controller().limit(limits=1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)


@cache
def controller() -> ThreadpoolController:
    """Return what limits scipy's BLAS, which has to be loaded first."""
    import scipy.linalg  # noqa: F401, PLC0415 - slow to import

    return ThreadpoolController()
