"""Module names of the unmodified base, and how peft matches them."""

import re
from collections.abc import Sequence

from torch import nn

from xlora_bench.nn.layers import AdaptedBlock, AdaptedLayer
from xlora_bench.nn.layers.adapter_heads import AdapterHeads

PREFIX = "base_model.model."
"""Prefix of all names in peft's files."""


def plain_names(model: nn.Module) -> list[str]:
    """Return the names that the modules of `model` have without adapters."""
    kinds = (AdaptedBlock, AdaptedLayer, AdapterHeads)
    wrapped = [name for name, module in model.named_modules() if isinstance(module, kinds)]
    names = []
    for name, _ in model.named_modules():
        outer = next((path for path in wrapped if name != path and name.startswith(f"{path}." if path else "")), None)
        if outer is None:
            names.append(name)
        elif name.startswith(f"{outer}.base_layer." if outer else "base_layer."):
            inner = name.removeprefix(f"{outer}." if outer else "").removeprefix("base_layer.")
            names.append(f"{outer}.{inner}" if outer else inner)
    return names


def target_modules(module_names: Sequence[str], names: Sequence[str]) -> list[str] | str:
    """Return the shortest `target_modules` with which peft adapts exactly `module_names` among all module `names`.

    Last name parts (`query`), else whole names, else a regular expression. A name also matches as a dotted ending.
    """
    endings = sorted({module_name.rsplit(".", 1)[-1] for module_name in module_names})
    for form in (endings, sorted(module_names)):
        matched = {name for name in names if any(name == entry or name.endswith(f".{entry}") for entry in form)}
        if matched == set(module_names):
            return form
    return "|".join(re.escape(module_name) for module_name in module_names)


def pattern_key(module_name: str) -> str:
    """Return the key that matches only `module_name` in peft's `rank_pattern` and `alpha_pattern`."""
    return f"^{re.escape(module_name)}"
