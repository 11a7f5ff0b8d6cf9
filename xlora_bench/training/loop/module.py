"""LightningModule of a run: training step, optimizer, checkpoint contents. Evaluation is inherited from `Scorer`."""

from typing import Any

import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from xlora_bench.data.task import TextTask
from xlora_bench.inject.methods.method import Method
from xlora_bench.models.packed import forward
from xlora_bench.system.ranks import ALONE, Ranks
from xlora_bench.training.loop.evaluation import Evaluation
from xlora_bench.training.loop.loss_watch import LossWatch
from xlora_bench.training.loop.optimizers import AdamW, Schedule
from xlora_bench.training.loop.scorer import Scorer
from xlora_bench.training.loop.torch_classes import TorchOptimizer, TorchSchedule
from xlora_bench.training.loop.trained_state import trained_names


class Classifier(Scorer):
    """Trains the parameters of `model` that require gradients; checkpoints leave out the frozen base.

    `evaluations` is saved in checkpoints. `collapse` is the reason for which training stopped early, or None.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        *,
        method: Method,
        task: TextTask,
        optimizer: AdamW | TorchOptimizer,
        schedule: Schedule | TorchSchedule,
        head: set[str],
        ranks: Ranks = ALONE,
    ) -> None:
        super().__init__(model, task=task, ranks=ranks)
        self.method = method
        self.optimizer_options = optimizer
        self.schedule_options = schedule
        self.head = head
        self.collapse: str | None = None
        self.losses = LossWatch()
        self.strict_loading = False

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor | None:
        """Return the task loss plus the method's penalty; stop if that is not finite.

        With gradient accumulation, or on several ranks, it is weighted: a step follows the mean loss over the rows of
        its window on all ranks, also of a partial window and of one with a smaller batch. Curves and the check have
        the mean loss over the rows of the batch on all ranks.
        """
        loss = self.loss(forward(self.model, batch), batch["labels"])
        mean = self.mean_over_ranks(loss, batch_idx)
        self.log("train/loss", mean, batch_size=len(batch["labels"]))
        penalty = self.method.penalty(self.model)
        if penalty is not None:  # the same on every rank; the weights of the ranks sum to that of one device
            self.log("train/penalty", penalty, batch_size=len(batch["labels"]))
            loss, mean = loss + penalty, mean + penalty
        self.losses.add(mean, step=self.global_step + 1)
        if self.stops(wait=self.ranks.world > 1):  # all ranks stop at the same step
            return None
        weight = self.window_weight(len(batch["labels"]), batch_idx)
        return loss if weight == 1.0 else weight * loss

    def mean_over_ranks(self, loss: Tensor, batch_idx: int) -> Tensor:
        """Return the mean loss over the rows of a batch on all ranks from the mean `loss` over the rows of this one."""
        if self.ranks.world == 1:
            return loss
        own, rows = self.trainer.train_dataloader.batch_sampler.rows_in(batch_idx)  # type: ignore[union-attr]
        return self.ranks.total(own / rows * loss.detach() if own else torch.zeros_like(loss))

    def stops(self, *, wait: bool = False) -> bool:
        """Return whether a loss was not finite; if so, set `collapse` and stop. See `LossWatch`."""
        fault = self.losses.fault(wait=wait)
        if fault is not None:
            self.collapse, self.trainer.should_stop = fault, True
        return fault is not None

    def on_validation_start(self) -> None:
        """Read the losses of the epoch that are still under way."""
        self.stops(wait=True)

    def on_train_epoch_end(self) -> None:
        """Read them also in a training without evaluation."""
        self.stops(wait=True)

    def window_weight(self, rows: int, batch_idx: int) -> float:
        """Return `n b / N` for a batch of b rows in an accumulation window of N rows; Lightning divides by n.

        On several ranks, b counts the rows of this rank and N those of all. If the loader does not tell the sizes of
        its batches, they count alike.
        """
        batches_per_step, loader = self.trainer.accumulate_grad_batches, self.trainer.train_dataloader
        shared = self.ranks.world > 1
        if loader is None or (batches_per_step == 1 and not shared):
            return 1.0
        first = batch_idx // batches_per_step * batches_per_step
        end = min(first + batches_per_step, int(self.trainer.num_training_batches))
        if shared:
            rows_in = loader.batch_sampler.rows_in
            return batches_per_step * rows_in(batch_idx)[0] / sum(rows_in(index)[1] for index in range(first, end))
        if loader.batch_size is None:
            return batches_per_step / (end - first)
        window = min(end * loader.batch_size, len(loader.dataset)) - first * loader.batch_size
        return batches_per_step * rows / window

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Log the norm of the whole gradient before it is clipped, on the steps on which curves get a point."""
        every: int = self.trainer.log_every_n_steps if self.trainer.loggers else 0  # type: ignore[attr-defined]
        if every and (self.trainer.global_step + 1) % every == 0:
            gradients = [parameter.grad for parameter in self.parameters() if parameter.grad is not None]
            self.log("train/grad_norm", get_total_norm(gradients))

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Take the step, then call the method's `post_optimizer_step`."""
        super().optimizer_step(*args, **kwargs)
        self.method.post_optimizer_step(self.model, self.global_step + 1)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Return the optimizer and its schedule, which advances every optimizer step."""
        optimizer: Optimizer = self.optimizer_options.build(
            self.model,
            self.head,
            self.method.lr_ratios(self.model),
            fused=str(self.trainer.precision).endswith("true"),  # else Lightning cannot clip gradients
        )
        schedule = self.schedule_options.build(optimizer, int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the trained tensors, drop the frozen base, add the evaluations."""
        kept = {f"model.{name}" for name in trained_names(self.model)}
        checkpoint["state_dict"] = {key: value for key, value in checkpoint["state_dict"].items() if key in kept}
        checkpoint["evaluations"] = [evaluation.as_tensors() for evaluation in self.evaluations]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the evaluations.

        Raises:
            ValueError: if the checkpoint is of another variant: its tensors are not those that train here.
        """
        kept = {f"model.{name}" for name in trained_names(self.model)}
        if kept != set(checkpoint["state_dict"]):
            raise ValueError("the checkpoint is of another variant: it does not hold exactly what trains here")
        self.evaluations = [Evaluation.from_tensors(saved) for saved in checkpoint["evaluations"]]
