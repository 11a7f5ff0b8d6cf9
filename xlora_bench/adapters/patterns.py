"""Option values by module name (`rank_pattern`, `alpha_pattern`)."""

from collections.abc import Mapping
from typing import TypeVar

Value = TypeVar("Value")


def pattern_value(pattern: Mapping[str, Value], module_name: str, default: Value) -> Value:
    """Return the value of the longest key that is `module_name` or a dotted ending of it, else `default`."""
    fitting = [key for key in pattern if module_name == key or module_name.endswith(f".{key}")]
    return pattern[max(fitting, key=len)] if fitting else default
