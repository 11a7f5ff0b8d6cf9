"""Dropout masks that depend only on (seed, epoch)."""

import lightning
import torch

from xlora_bench.runs import seeds


class EpochStreams(lightning.Callback):
    """Reseeds torch at the start of each training epoch, so that a resumed run is bit-identical."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Seed the global generators from the stream `dropout / epoch`."""
        torch.manual_seed(seeds.derive(self.seed, "dropout", trainer.current_epoch))
