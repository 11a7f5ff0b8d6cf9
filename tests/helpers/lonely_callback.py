"""A callback that changes the adapter in one process of a run alone."""

import lightning
import torch


class LonelyCallback(lightning.Callback):
    """Adds to the head on rank 1."""

    def on_train_batch_end(self, trainer, pl_module, *_):
        if trainer.global_rank == 1:
            assert not trainer.is_global_zero
            with torch.no_grad():
                pl_module.model.classifier.bias += 1e-12
