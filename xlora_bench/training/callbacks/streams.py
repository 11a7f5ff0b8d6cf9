"""Dropout masks that depend on (seed, epoch) alone."""

import lightning
import torch

from xlora_bench.runs import seeds


class EpochStreams(lightning.Callback):
    """Starts each training epoch's random stream anew, so that a run resumed there is bit-identical."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Seed the global generators from the stream `dropout / epoch`."""
        torch.manual_seed(seeds.derive(self.seed, "dropout", trainer.current_epoch))
