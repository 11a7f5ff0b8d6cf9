"""Dropout masks that depend only on (seed, epoch, rank)."""

import lightning
import torch

from xlora_bench.runs import seeds
from xlora_bench.system.ranks import ALONE, Ranks


class EpochStreams(lightning.Callback):
    """Reseeds torch at the start of each training epoch, so that a resumed run is bit-identical.

    Each rank has its own stream: ranks have different rows. That of the first rank is that of a run on one device.
    """

    def __init__(self, seed: int, ranks: Ranks = ALONE) -> None:
        self.seed = seed
        self.ranks = ranks

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Seed the global generators from the stream `dropout / epoch`."""
        rank = () if self.ranks.is_first else (self.ranks.rank,)
        torch.manual_seed(seeds.derive(self.seed, "dropout", trainer.current_epoch, *rank))
