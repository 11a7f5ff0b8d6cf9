"""Parts side by side under names, and the rows of a batch that each of them serves."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

ATTRIBUTES = nn.ModuleDict()


def check_name(name: str) -> None:
    """Raise a ValueError if `name` cannot be an adapter's name."""
    if not isinstance(name, str) or not name.strip() or not name.isprintable() or set(name) & set("/\\"):
        raise ValueError(f"adapter name {name!r} must be printable text without slashes; dots are fine")


@lru_cache(maxsize=1024)  # used by every adapted layer in every forward
def key_of(name: str) -> str:
    """Return the state-dict key of `name`: dots are escaped, and names that a ModuleDict has as attributes."""
    key = name.replace("%", "%25").replace(".", "%2E")
    return f"%{key}" if hasattr(ATTRIBUTES, key) else key


def name_of(key: str) -> str:
    """Return the name whose `key_of` is `key`."""
    if key.startswith("%") and not key.startswith(("%25", "%2E")):
        key = key[1:]
    return key.replace("%2E", ".").replace("%25", "%")


class AdapterDict(nn.ModuleDict):
    """Modules by adapter name, which may hold dots."""

    def __getitem__(self, name: str) -> Any:
        return self._modules[key_of(name)]

    def __setitem__(self, name: str, module: nn.Module) -> None:
        self.add_module(key_of(name), module)

    def __delitem__(self, name: str) -> None:
        del self._modules[key_of(name)]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and key_of(name) in self._modules

    def __iter__(self) -> Iterator[str]:
        return iter([name_of(key) for key in self._modules])

    def keys(self) -> Iterable[str]:  # type: ignore[override]
        """Return the names, in the order they were added."""
        return list(self)

    def items(self) -> Iterable[tuple[str, Any]]:  # type: ignore[override]
        """Return the names and their modules."""
        return [(name, self[name]) for name in self]

    def rename(self, old: str, new: str) -> None:
        """Give the module called `old` the name `new`, in its old place."""
        modules = {new if name == old else name: module for name, module in self.items()}
        self.clear()
        for name, module in modules.items():
            self[name] = module


@dataclass(frozen=True)
class Route:
    """Which rows of a batch each adapter serves; `names[i]` serves row i, None stands for the base alone."""

    names: tuple[str | None, ...]

    def rows(self, x: Tensor) -> dict[str | None, Tensor]:
        """Return the row numbers of each adapter, on the device of `x (rows, ...)`.

        Raises:
            ValueError: if the first dimension of `x` is not the batch.
        """
        if len(x) != len(self.names):
            raise ValueError(
                f"{len(self.names)} rows are routed, but an adapted module got an input of shape {tuple(x.shape)}: "
                "routing needs layers whose first dimension is the batch (packed batches have none; use layout=padded)"
            )
        return {
            name: torch.tensor([row for row, other in enumerate(self.names) if other == name], device=x.device)
            for name in dict.fromkeys(self.names)
        }


def sorted_weights(weights: Mapping[str, float]) -> dict[str, float]:
    """Return `weights` in the order of their names, so that a sum over them is the same to the bit in any order."""
    return dict(sorted(weights.items()))
