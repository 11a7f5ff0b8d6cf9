"""Atomic checkpoint after every epoch, and the adapter of the best epoch."""

from pathlib import Path
from typing import Any

import lightning
import torch

from xlora_bench.runs.run import checkpoint_path
from xlora_bench.runs.sweep_context import checkpoint_written
from xlora_bench.system.io import replacing
from xlora_bench.system.ranks import ALONE, Ranks
from xlora_bench.training.loop.evaluation import best_of
from xlora_bench.training.loop.module import Classifier
from xlora_bench.training.loop.trained_state import save_trained

THREADS = "threads"
"""Key of a checkpoint under which the number of torch threads, of all ranks together, is kept."""
DEVICES = "devices"
"""Key of a checkpoint under which the number of devices is kept."""


class EpochCheckpoint(lightning.Callback):
    """Writes `checkpoint/last.ckpt` and `adapter_best.safetensors` in `folder`, each by one atomic rename.

    The checkpoint also holds the numbers of threads and devices (`threads_of`, `devices_of`). Before the next epoch the
    folder is sent to the results folder of the sweep, if it is `sent` and that folder is not here.
    """

    def __init__(self, folder: Path, ranks: Ranks = ALONE, *, sent: bool = False) -> None:
        self.folder = folder
        self.ranks = ranks
        self.sent = sent
        self.path = checkpoint_path(folder)

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: Classifier) -> None:  # type: ignore[override]
        """Send the folder, to which all callbacks have written what belongs to the last epoch."""
        if self.sent and self.path.exists():
            checkpoint_written(self.folder)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: Classifier) -> None:  # type: ignore[override]
        """Save the trained tensors and the trainer's state; save nothing after a collapse."""
        if pl_module.collapse is not None:
            return
        evaluations = pl_module.evaluations
        if evaluations and best_of(evaluations, pl_module.task.headline) is evaluations[-1]:
            save_trained(pl_module.model, self.folder / "adapter_best.safetensors")
        with replacing(self.path) as temporary:
            trainer.save_checkpoint(temporary)

    def on_save_checkpoint(self, trainer: lightning.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Add the numbers of threads and devices."""
        checkpoint[THREADS] = torch.get_num_threads() * self.ranks.world
        checkpoint[DEVICES] = self.ranks.world


def threads_of(checkpoint: Path | None) -> int | None:
    """Return the number of torch threads that a checkpoint was trained on; None if it is not known."""
    return None if checkpoint is None else _content(checkpoint).get(THREADS)


def devices_of(checkpoint: Path) -> int:
    """Return the number of devices that a checkpoint was trained on."""
    return _content(checkpoint).get(DEVICES, 1)


def _content(checkpoint: Path) -> dict[str, Any]:
    content = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    return content if isinstance(content, dict) else {}
