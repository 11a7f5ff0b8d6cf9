"""LoRA+: LoRA with a higher learning rate for B."""

from collections.abc import Iterable
from dataclasses import dataclass

from xlora_bench.adapters.lora import LoRA
from xlora_bench.system.options import Positive


@dataclass(frozen=True, kw_only=True)
class LoRAPlus(LoRA):
    """LoRA whose B trains at `lr_ratio` times the learning rate of A; `r (out + in)` parameters.

    Source: arXiv 2402.12354 (LoRA+).

    Raises:
        ValueError: if `lr_ratio` is not positive.
    """

    lr_ratio: Positive = 16.0

    def lr_ratios(self, names: Iterable[str]) -> dict[str, float]:
        """Return `lr_ratio` for every B among the parameter `names`."""
        return {name: self.lr_ratio for name in names if name.endswith(".lora_B")}
