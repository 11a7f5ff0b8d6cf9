"""Modules by adapter name, and routing of the rows of a batch to adapters."""

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
    """Return the state-dict key of `name`. Escapes dots and names that are attributes of `nn.ModuleDict`."""
    key = name.replace("%", "%25").replace(".", "%2E")
    return f"%{key}" if hasattr(ATTRIBUTES, key) else key


def name_of(key: str) -> str:
    """Return the name whose `key_of` is `key`."""
    if key.startswith("%") and not key.startswith(("%25", "%2E")):
        key = key[1:]
    return key.replace("%2E", ".").replace("%25", "%")


class AdapterDict(nn.ModuleDict):
    """`nn.ModuleDict` by adapter name. Names may contain dots."""

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
        """Return the names in the order of insertion."""
        return list(self)

    def items(self) -> Iterable[tuple[str, Any]]:  # type: ignore[override]
        """Return the names and their modules."""
        return [(name, self[name]) for name in self]

    def rename(self, old: str, new: str) -> None:
        """Rename the module `old` to `new`; the order does not change."""
        modules = {new if name == old else name: module for name, module in self.items()}
        self.clear()
        for name, module in modules.items():
            self[name] = module


@dataclass(frozen=True)
class Route:
    """Routing of a batch: row i uses the adapter `names[i]`, or the base alone if that is None."""

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
    """Return `weights` sorted by name, so that sums over them do not depend on the caller's order."""
    return dict(sorted(weights.items()))
