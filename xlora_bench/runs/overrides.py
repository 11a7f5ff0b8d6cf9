"""Overrides of a run as `{key: value text}`, and values from YAML in Hydra's override grammar."""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override

Overrides = dict[str, str]
"""The overrides of a run, by key: `{"adapter": "pissa", "optimizer.lr": "0.0001"}`."""

START_FROM = "start_from"
PLAIN = re.compile(r"[\w.+\-/:]+|\$\{[\w.:]+\}", re.ASCII)
"""Values that need no quotes: words, numbers, paths, interpolations."""


@cache
def parsed(override: str) -> Override:
    """Return one override, parsed by Hydra's grammar."""
    return OverridesParser.create().parse_override(override)


def as_lines(overrides: Mapping[str, str]) -> list[str]:
    """Return overrides as `key=value` texts, the form of a command line."""
    return [f"{key}={value}" for key, value in overrides.items()]


def from_lines(lines: Iterable[str]) -> Overrides:
    """Return `key=value` texts as overrides; the last one wins if a key is repeated.

    Raises:
        ValueError: if a line is not `key=value`.
    """
    result: Overrides = {}
    for line in lines:
        key, equals, value = str(line).partition("=")
        if not key.strip() or not (equals or key.startswith("~")):
            raise ValueError(f"`{line}` is not an override: write key=value")
        result.pop(key, None)
        result[key] = value
    return result


def as_text(value: Any) -> str:
    """Return a YAML value in Hydra's override grammar, quoted where necessary."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{','.join(map(as_text, value))}]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{as_text(item)}" for key, item in value.items()) + "}"
    text = str(value)
    if not isinstance(value, str) or PLAIN.fullmatch(text):
        return text
    escaped = re.sub(r"(\\+)('|$)", r"\1\1\2", text).replace("'", r"\'")
    return f"'{escaped}'"


def listed(text: str) -> list[str]:
    """Return the overrides listed in a `start_from` value; empty for null.

    Raises:
        ValueError: if it is not a list of `key=value`.
    """
    value = parsed(quoted(f"{START_FROM}={text}")).value()
    if value is None:
        return []
    if not isinstance(value, list) or not value:
        raise ValueError(f"`{START_FROM}` (={text}) must be a list of overrides, such as [task=mnli,optimizer.lr=5e-4]")
    return list(as_lines(from_lines(str(item) for item in value)))


def parent_overrides(overrides: Sequence[str], *, start_from: object) -> list[str]:
    """Return the overrides of the parent run: those of the child (`overrides`), then those listed in `start_from`.

    Raises:
        ValueError: if `start_from` is not a list of `key=value`.
    """
    own = {key: value for key, value in from_lines(overrides).items() if key != START_FROM}
    changes = from_lines(listed(as_text(start_from)))
    return as_lines({**own, START_FROM: "null", **changes, "rerun": "false"})


def quoted(argument: str) -> str:
    """Quote each element of a `start_from=[task=mnli]` argument, as Hydra requires; keep other arguments."""
    key, _, value = argument.partition("=")
    bare = re.fullmatch(r"\[([^\[\]'\"]*)\]", value.strip())
    if key != START_FROM or bare is None:
        return argument
    return f"{key}=[{','.join(as_text(item.strip()) for item in bare[1].split(',') if item.strip())}]"
