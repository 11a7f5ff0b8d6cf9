"""The error of a broken promise, and comparisons that raise it with the numbers."""

from collections.abc import Mapping

import torch
from torch import Tensor


class BrokenPromiseError(AssertionError):
    """A variant does not keep a promise. The message is one line that says what differs, and by how much."""


def require(kept: bool, message: str) -> None:
    """Raise a `BrokenPromiseError` with `message` unless `kept`."""
    if not kept:
        raise BrokenPromiseError(message)


def require_equal(actual: Tensor, expected: Tensor, what: str) -> None:
    """Raise a `BrokenPromiseError` unless both tensors are equal to the bit."""
    if not torch.equal(actual, expected):
        raise BrokenPromiseError(f"{what}: {difference(actual, expected)}")


def require_close(actual: Tensor, expected: Tensor, tolerance: Mapping[str, float], what: str) -> None:
    """Raise a `BrokenPromiseError` unless `actual` is `expected` within `tolerance` (`rtol`, `atol`)."""
    try:
        torch.testing.assert_close(actual, expected, rtol=tolerance["rtol"], atol=tolerance["atol"])
    except AssertionError as error:
        allowed = ", ".join(f"{name} {value:g}" for name, value in tolerance.items())
        raise BrokenPromiseError(f"{what}: {difference(actual, expected)} (allowed: {allowed})") from error


def difference(actual: Tensor, expected: Tensor) -> str:
    """Return how two tensors differ: shapes, dtypes, or the number of other entries and the largest difference."""
    if actual.shape != expected.shape or actual.dtype != expected.dtype:
        return f"{actual.dtype} {tuple(actual.shape)} instead of {expected.dtype} {tuple(expected.shape)}"
    gap = (actual.detach().double() - expected.detach().double()).abs()
    return f"{int((gap != 0).sum())} of {gap.numel()} entries differ, the largest difference is {gap.max().item():.3g}"
