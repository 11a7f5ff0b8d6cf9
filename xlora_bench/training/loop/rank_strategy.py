"""Lightning's strategy of one process of a run on several devices."""

import torch
from lightning.pytorch.strategies import SingleDeviceStrategy
from lightning.pytorch.utilities import rank_zero_only

from xlora_bench.system.ranks import Ranks


class RankStrategy(SingleDeviceStrategy):
    """Trains on one device, and tells callbacks which rank it is; `SumGradients` and `Ranks` do what ranks share."""

    def __init__(self, device: torch.device, ranks: Ranks) -> None:
        super().__init__(device)
        self.global_rank = self.local_rank = ranks.rank
        rank_zero_only.rank = ranks.rank  # type: ignore[attr-defined]
        self.world_size = ranks.world

    @property
    def is_global_zero(self) -> bool:
        """Whether this is the rank that writes files."""
        return self.global_rank == 0
