"""Names of modules as the untouched base has them, and how peft matches them."""

import re
from collections.abc import Sequence

from torch import nn

from xlora_bench.nn.layers import AdaptedLayer
from xlora_bench.nn.layers.adapter_heads import NamedHead

PREFIX = "base_model.model."
"""What peft puts before every name in its files."""


def plain_names(model: nn.Module) -> list[str]:
    """Return the names that the modules have without adapters."""
    wrapped = [name for name, module in model.named_modules() if isinstance(module, (AdaptedLayer, NamedHead))]
    names = []
    for name, _ in model.named_modules():
        outer = next((path for path in wrapped if name != path and name.startswith(f"{path}." if path else "")), None)
        if outer is None:
            names.append(name)
        elif name.startswith(f"{outer}.base_layer." if outer else "base_layer."):
            inner = name.removeprefix(f"{outer}." if outer else "").removeprefix("base_layer.")
            names.append(f"{outer}.{inner}" if outer else inner)
    return names


def target_modules(places: Sequence[str], names: Sequence[str]) -> list[str] | str:
    """Return the shortest form that makes peft adapt `places` and nothing else among all module `names`.

    Last parts (`query`), else whole names, else a regular expression: peft takes a name for every name that ends so.
    """
    endings = sorted({place.rsplit(".", 1)[-1] for place in places})
    for form in (endings, sorted(places)):
        matched = {name for name in names if any(name == entry or name.endswith(f".{entry}") for entry in form)}
        if matched == set(places):
            return form
    return "|".join(re.escape(place) for place in places)


def pattern_key(place: str) -> str:
    """Return the key that matches `place` alone in peft's `rank_pattern` and `alpha_pattern`."""
    return f"^{re.escape(place)}"
