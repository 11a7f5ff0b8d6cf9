"""Atomic checkpoint after every epoch, and the adapter of the best epoch."""

from pathlib import Path
from typing import Any

import lightning
import torch

from xlora_bench.runs.run import checkpoint_path
from xlora_bench.system.io import replacing
from xlora_bench.training.loop.evaluation import best_of
from xlora_bench.training.loop.module import Classifier
from xlora_bench.training.loop.trained_state import save_trained

THREADS = "threads"
"""Key of a checkpoint under which the number of torch threads is kept."""


class EpochCheckpoint(lightning.Callback):
    """Writes `checkpoint/last.ckpt` and `adapter_best.safetensors` in `folder`, each by one atomic rename.

    The checkpoint also holds the number of threads (`threads_of`).
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = checkpoint_path(folder)

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
        """Add the number of threads."""
        checkpoint[THREADS] = torch.get_num_threads()


def threads_of(checkpoint: Path | None) -> int | None:
    """Return the number of torch threads that a checkpoint was trained on; None if it is not known."""
    if checkpoint is None:
        return None
    content = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    return content.get(THREADS) if isinstance(content, dict) else None
