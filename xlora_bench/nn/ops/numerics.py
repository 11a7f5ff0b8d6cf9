"""Revisions of the program's arithmetic: which sums it takes in which order, and which random numbers it draws.

They differ in last digits, and, where fewer random numbers are drawn, in the noise of a cell; not in what is computed.
The config's `arithmetic` says a cell's and is part of its name; a record without it is of revision 1 and comes again
to the bit.

1. Every layer computes all tokens, as transformers writes it.
2. In packed batches of the BERT family the last attention layer asks for first tokens alone, and query, key and value
   are one function of their input. Where nothing trains, an adapted layer that is cheaper that way sums its weight.
3. On CPUs the sentences of a packed batch follow each other without padding where that is cheaper than rows of one
   length, and where attention is torch's: it is computed in rows of no more tokens than the shortest of
   `task.row_lengths`, or of one sentence.
"""

from collections.abc import Iterator
from contextlib import contextmanager

LATEST = 3
_in_use = [LATEST]


def revision() -> int:
    """Return the revision in use; `LATEST` unless told otherwise."""
    return _in_use[-1]


def check_revision(number: object) -> int:
    """Return the revision that a config means by `number`: None is 1. Raises ValueError for one that there is not."""
    if number is None:
        return 1
    if isinstance(number, int) and not isinstance(number, bool) and 1 <= number <= LATEST:
        return number
    raise ValueError(
        f"`arithmetic` (={number!r}) must be 1 to {LATEST}, or null, which is 1: records without it are so"
    )


@contextmanager
def arithmetic(number: object) -> Iterator[None]:
    """Compute in revision `number` while the context is open."""
    _in_use.append(check_revision(number))
    try:
        yield
    finally:
        _in_use.pop()
