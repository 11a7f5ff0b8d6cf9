"""Configs as plain dicts: overrides and interpolations of the usual kind, without OmegaConf, whose copies take 3 ms."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

REFERENCE = re.compile(r"\$\{(\w+(?:\.\w+)*)\}")
"""An interpolation that is the value of another key: `${adapter.rank}`."""
ENVIRONMENT = re.compile(r"\$\{\s*(?:oc\.)?env\s*:")
"""An interpolation by the value of an environment variable."""
MAY_READ_ENVIRONMENT = ("paths", "hydra")
"""Top-level keys that may have such interpolations: folders, and Hydra's own node, which no record holds."""
Change = tuple[tuple[str, ...], Any]
"""A key, split at its dots, and its new value."""


SWEEP_ONLY: Mapping[str, Any] = {"grid": [], "tuning": None, "paper": None}
"""Keys that describe a sweep and not a run, with the values that they have in the config of a run."""


class NotPlainError(Exception):
    """An override or interpolation that only OmegaConf can apply."""


def plain_config(config: DictConfig, *, resolve: bool = True) -> dict[str, Any]:
    """Return the config of a run as plain values, without what only the sweep reads (`SWEEP_ONLY`).

    A rule of `grid` may hold an interpolation that this run cannot resolve: `${adapter.rank}` beside `adapter=full`.

    Raises:
        ValueError: if a value would be read from an environment variable, outside of `MAY_READ_ENVIRONMENT`.
    """
    if resolve:
        refuse_environment(config)
    plain: dict[str, Any] = {}
    for key in map(str, config):
        node = None if key in SWEEP_ONLY else config._get_node(key)
        if key in SWEEP_ONLY:
            plain[key] = SWEEP_ONLY[key]
        elif OmegaConf.is_config(node):
            plain[key] = OmegaConf.to_container(cast("DictConfig", node), resolve=resolve)
        else:
            plain[key] = config[key] if resolve else cast("Any", node)._value()
    return plain


def refuse_environment(config: DictConfig) -> None:
    """Raise a ValueError for a value that would be read from an environment variable: records and logs would hold it.

    What only the sweep reads is not checked, nor `MAY_READ_ENVIRONMENT`.
    """
    for key in map(str, config):
        node = None if key in SWEEP_ONLY or key in MAY_READ_ENVIRONMENT else config._get_node(key)
        if node is None:
            continue
        raw: Any = OmegaConf.to_container(cast("DictConfig", node)) if OmegaConf.is_config(node) else node._value()
        for path, text in texts_in(raw, key):
            if ENVIRONMENT.search(text):
                raise ValueError(environment_fault(path, text))


def environment_fault(key: str, text: str) -> str:
    """Return the line on a value that would be read from an environment variable."""
    return (
        f"`{key}` (={text}) must not read an environment variable: records and logs would hold its value; write the "
        "value itself, or leave a secret out: libraries read HF_TOKEN and WANDB_API_KEY themselves"
    )


def refuse_environment_in(overrides: Iterable[str]) -> None:
    """Raise a ValueError for such an override: Hydra resolves it before a sweep writes its plan."""
    for line in overrides:
        key, _, text = line.partition("=")
        if ENVIRONMENT.search(text) and key.lstrip("+~").partition(".")[0] not in MAY_READ_ENVIRONMENT:
            raise ValueError(environment_fault(key.lstrip("+"), text))


def texts_in(node: Any, path: str) -> Iterator[tuple[str, str]]:
    """Yield the dotted keys and the texts in `node`, the keys of its mappings included."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield path, str(key)
            yield from texts_in(value, f"{path}.{key}")
    elif isinstance(node, list):
        for value in node:
            yield from texts_in(value, path)
    elif isinstance(node, str):
        yield path, node


def with_changes(config: Mapping[str, Any], changes: Iterable[Change]) -> dict[str, Any]:
    """Return a copy of `config` with other values at existing keys; what does not change is shared.

    Raises:
        NotPlainError: if a key does not exist, or its old or new value is a mapping.
    """
    result = dict(config)
    for path, value in changes:
        node = result
        for key in path[:-1]:
            inner = node.get(key)
            if not isinstance(inner, dict):
                raise NotPlainError
            node[key] = node = dict(inner)
        if path[-1] not in node or isinstance(node[path[-1]], dict) or isinstance(value, dict):
            raise NotPlainError
        node[path[-1]] = value
    return result


def interpolations(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield the places in `node` that hold interpolations, and their texts.

    Raises:
        NotPlainError: if one is no `REFERENCE`, is in a list, or a value is missing (`???`).
    """
    if isinstance(node, dict):
        for key, value in node.items():
            yield from interpolations(value, (*path, key))
    elif isinstance(node, list):
        if any(True for value in node for _ in interpolations(value, path)):
            raise NotPlainError
    elif isinstance(node, str) and ("${" in node or node == "???"):
        if not REFERENCE.fullmatch(node):
            raise NotPlainError
        yield path, node


def referred(config: Mapping[str, Any], text: str) -> Any:
    """Return the value that an interpolation refers to.

    Raises:
        NotPlainError: if it is not there, is missing, or holds an interpolation itself.
    """
    match = REFERENCE.fullmatch(text)
    node: Any = config
    for key in match[1].split(".") if match else ():
        if not isinstance(node, dict) or key not in node:
            raise NotPlainError
        node = node[key]
    if match is None or any(True for _ in interpolations(node)):
        raise NotPlainError
    return node


def resolved(config: Mapping[str, Any], places: Iterable[tuple[tuple[str, ...], str]]) -> dict[str, Any]:
    """Return a copy of `config` with the values that its interpolations refer to; `places` are where they are.

    Raises:
        NotPlainError: if one refers to another, or to nothing.
    """
    result = dict(config)
    for path, text in places:
        node = result
        for key in path[:-1]:
            node[key] = node = dict(node[key])
        if node[path[-1]] == text:  # else an override has replaced it
            node[path[-1]] = referred(config, text)
    return result
