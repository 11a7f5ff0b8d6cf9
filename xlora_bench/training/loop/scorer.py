"""Evaluation of a model on the eval splits of a task, in training and without it."""

from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from xlora_bench.data.task import TextTask
from xlora_bench.models.packed import forward
from xlora_bench.system.ranks import ALONE, Ranks
from xlora_bench.training.loop.evaluation import Evaluation


class Scorer(lightning.LightningModule):
    """Evaluates `model` on the eval splits of `task`, in `validate` and `test` of a `lightning.Trainer`.

    `evaluations` has one entry per validation so far: metrics and per-example predictions. The sanity check before a
    training is none. `predict` returns a dict with `idx (n,)` and `logits (n, K)` for each batch. On several `ranks`,
    each evaluates its rows, and all have the metrics and predictions of all rows.
    """

    def __init__(self, model: nn.Module, *, task: TextTask, ranks: Ranks = ALONE) -> None:
        super().__init__()
        self.ranks = ranks
        self.model = model
        self.task = task
        self.evaluations: list[Evaluation] = []
        self._outputs: list[list[tuple[Tensor, Tensor, Tensor]]] = []

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the cross entropy of `logits (N, K)`, or the mean squared error of `logits (N, 1)` for regression.

        It is computed in the dtype of the logits, and in fp32 if that has fewer bits.
        """
        logits = logits if logits.dtype == torch.float64 else logits.float()
        if self.task.labels is None:
            return F.mse_loss(logits.squeeze(-1), labels.to(logits.dtype))
        return F.cross_entropy(logits, labels)

    def on_validation_epoch_start(self) -> None:
        """Start collecting predictions."""
        self._outputs = [[] for _ in self.task.eval_splits]

    def validation_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> None:
        """Collect idx, logits and labels of a batch; penalties are not evaluated."""
        logits = forward(self.model, batch).float()
        self._outputs[dataloader_idx].append((batch["idx"], logits, batch["labels"]))

    def on_validation_epoch_end(self) -> None:
        """Compute and log epoch and metrics over all examples, sorted by idx."""
        if self.trainer.sanity_checking:  # a few batches of the untrained model
            return
        evaluation = self._evaluation()
        self.evaluations.append(evaluation)
        self.log_dict({f"validation/{name}": float(value) for name, value in evaluation.summary().items()})

    def on_test_epoch_start(self) -> None:
        """Start collecting predictions."""
        self.on_validation_epoch_start()

    def test_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> None:
        """Collect idx, logits and labels of a batch."""
        self.validation_step(batch, batch_idx, dataloader_idx)

    def on_test_epoch_end(self) -> None:
        """Compute and log the metrics over all examples."""
        self.log_dict({f"test/{name}": float(value) for name, value in self._evaluation().metrics.items()})

    def predict_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """Return idx and logits of a batch."""
        return {"idx": batch["idx"], "logits": forward(self.model, batch)}

    def _evaluation(self) -> Evaluation:
        splits = {}
        for split, outputs in zip(self.task.eval_splits, self._outputs, strict=True):
            own = (torch.cat(parts) for parts in zip(*outputs, strict=True))
            idx, logits, labels = (self.ranks.gathered(part).cpu() for part in own)
            order = torch.argsort(idx)
            splits[split] = (idx[order], logits[order], labels[order])
        return Evaluation.of(self.task, epoch=self.current_epoch + 1, splits=splits, loss=self.loss)
