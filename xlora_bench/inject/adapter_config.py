"""Configuration of an adapter. Stored in the adapted layers and in adapter files."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xlora_bench.adapters.base import Adapter
    from xlora_bench.adapters.init_schemes import InitScheme
    from xlora_bench.inject.targets import Targets


@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """The variant with its options, the init scheme and the targets of an adapter."""

    adapter: "Adapter"
    init_scheme: "InitScheme"
    targets: "Targets"
