"""Atomic checkpoint after every epoch, and the adapter of the best epoch."""

from pathlib import Path

import lightning

from xlora_bench.runs.run import checkpoint_path
from xlora_bench.training.loop.evaluation import best_of
from xlora_bench.training.loop.module import Classifier
from xlora_bench.training.loop.trained_state import save_trained


class EpochCheckpoint(lightning.Callback):
    """Writes `checkpoint/last.ckpt` and `adapter_best.safetensors` in `folder`, each by one atomic rename."""

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
        temporary = self.path.with_suffix(".tmp")
        trainer.save_checkpoint(temporary)
        temporary.replace(self.path)
