"""Gradients of a run on several devices: the sum over the ranks, before anything else reads them."""

from collections.abc import Sequence
from itertools import groupby

import lightning
import torch
from torch.nn import Parameter
from torch.optim import Optimizer

from xlora_bench.system.ranks import Ranks
from xlora_bench.training.loop.module import Classifier
from xlora_bench.training.loop.trained_state import trained_state_dict


class SumGradients(lightning.Callback):
    """Adds the gradients of all ranks before each optimizer step, so that every rank takes the step of one device.

    It must come before all callbacks that read gradients.

    Raises:
        RuntimeError: in a hook, at the start or after an epoch, if the trained tensors of the ranks differ.
    """

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Classifier) -> None:  # type: ignore[override]
        """Check that the ranks start from the same tensors."""
        self._check(pl_module)

    def on_before_optimizer_step(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, optimizer: Optimizer
    ) -> None:
        """Add the gradients."""
        sum_gradients([weight for weight in pl_module.parameters() if weight.requires_grad], self.ranks)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: Classifier) -> None:  # type: ignore[override]
        """Check before anything is saved that the ranks have the same tensors."""
        self._check(pl_module)

    def _check(self, pl_module: Classifier) -> None:
        if not self.ranks.equal(list(trained_state_dict(pl_module.model).values())):
            raise RuntimeError(
                f"the trained tensors differ between the {self.ranks.world} processes of this run: something changes "
                "them in one process alone, for instance a callback; use trainer.devices=1"
            )


@torch.no_grad()
def sum_gradients(parameters: Sequence[Parameter], ranks: Ranks) -> None:
    """Replace the gradient of each parameter by its sum over the ranks, in fp32 or more.

    A parameter that no rank has a gradient for keeps none: an optimizer then leaves it alone, decay included.
    """
    if ranks.world == 1 or not parameters:
        return
    has = torch.tensor([weight.grad is not None for weight in parameters], dtype=torch.int64)
    counts = ranks.total(has.to(parameters[0].device)).tolist()
    reached = [weight for weight, count in zip(parameters, counts, strict=True) if count]
    for _, group in groupby(sorted(reached, key=lambda weight: str(weight.dtype)), key=lambda weight: weight.dtype):
        weights = list(group)
        wide = torch.promote_types(weights[0].dtype, torch.float32)
        gradients = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in weights]
        flat = ranks.total(torch.cat([gradient.reshape(-1).to(wide) for gradient in gradients]))
        sizes = [weight.numel() for weight in weights]
        for weight, part in zip(weights, flat.split(sizes), strict=True):
            weight.grad = part.view_as(weight).to(weight.dtype)
