"""What made an adapter: its options, kept beside its deltas so that a file can carry them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xlora_bench.adapters.base import Adapter
    from xlora_bench.adapters.init_schemes import InitScheme
    from xlora_bench.inject.targets import Targets


@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """The variant with its options, the start and the targets that an adapter was added with."""

    adapter: "Adapter"
    init_scheme: "InitScheme"
    targets: "Targets"
