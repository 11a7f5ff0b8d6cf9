"""Which rank a weight gets: given, by pattern, or from its spectrum."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeVar

from torch import Tensor

from xlora_bench.decompositions import energy_rank, singular_values

if TYPE_CHECKING:
    from xlora_bench.adapters.base import Adapter

Value = TypeVar("Value")


def resolve_rank(adapter: "Adapter", weight: Tensor, place: str) -> int:
    """Return the rank for `weight (out, in)` at `place`.

    Raises:
        ValueError: if it is not in `[1, min(out, in)]`, or below 1 where the variant has no upper limit.
    """
    full_rank = min(weight.shape)
    rank = pattern_value(adapter.rank_pattern, place, adapter.rank)
    if rank == "auto":
        spectral = energy_rank(singular_values(weight), adapter.energy_threshold)
        return max(min(spectral, adapter.rank_max or full_rank, full_rank), min(adapter.rank_min, full_rank))
    if rank < 1 or (adapter.rank_limited and rank > full_rank):
        where = f" at `{place}`" if place else ""
        raise ValueError(
            f"`adapter.rank` (={rank}) must be at least 1 and at most min(out, in) (={full_rank}){where}; "
            "lower it, or give this module its own with `adapter.rank_pattern`"
        )
    return rank


def pattern_value(pattern: Mapping[str, Value], place: str, default: Value) -> Value:
    """Return the value of the longest key of `pattern` that equals `place` or a dotted ending of it."""
    fitting = [key for key in pattern if place == key or place.endswith(f".{key}")]
    return pattern[max(fitting, key=len)] if fitting else default
