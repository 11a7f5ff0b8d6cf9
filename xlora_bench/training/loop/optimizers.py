"""Optimizer and schedule of a run, as options that build the torch objects."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from transformers import get_scheduler

from xlora_bench.system.options import CheckedOptions, Fraction, NonNegative, Positive

ScheduleName = Literal[
    "linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup", "inverse_sqrt"
]
"""Schedules of transformers that need no more than the warmup and the number of steps."""


@dataclass(frozen=True, kw_only=True)
class AdamW(CheckedOptions):
    """AdamW on the parameters that require gradients; `head_lr` (None: `lr`) is the learning rate of the head.

    Biases and normalisation layers get no weight decay, as in transformers.

    Raises:
        ValueError: if a learning rate is not positive.
    """

    config_group: ClassVar[str] = "optimizer"

    lr: Positive = 1e-3
    head_lr: Positive | None = None
    weight_decay: NonNegative = 0.0
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    eps: Positive = 1e-8

    def build(
        self, model: nn.Module, head: Iterable[str], lr_ratios: Mapping[str, float], *, fused: bool = True
    ) -> Optimizer:
        """Return the optimizer; `head` has the names of the head's parameters, `lr_ratios` factors of `lr` by name."""
        decay = self.weight_decay
        return torch.optim.AdamW(
            parameter_groups(model, head, lr_ratios, lr=self.lr, head_lr=self.head_lr, weight_decay=decay),
            betas=(self.betas[0], self.betas[1]),
            eps=self.eps,
            fused=fused,
        )


def parameter_groups(
    model: nn.Module,
    head: Iterable[str],
    lr_ratios: Mapping[str, float],
    *,
    lr: float,
    head_lr: float | None,
    weight_decay: float | None,
) -> list[dict[str, Any]]:
    """Return the trained parameters in groups of one learning rate and weight decay each, for any optimizer.

    A `head_lr` of None is `lr`; with a `weight_decay` of None the groups do not set it.
    """
    head, spared = set(head), undecayed_names(model)
    head_lr = lr if head_lr is None else head_lr
    groups: dict[tuple[float, float | None], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            rate = head_lr if name in head else lr * lr_ratios.get(name, 1.0)
            decay = 0.0 if weight_decay is not None and name in spared else weight_decay
            groups.setdefault((rate, decay), []).append(parameter)
    return [
        {"params": group, "lr": rate, **({} if decay is None else {"weight_decay": decay})}
        for (rate, decay), group in groups.items()
    ]


def undecayed_names(model: nn.Module) -> set[str]:
    """Return the names of biases and of the parameters of normalisation layers, which get no weight decay.

    A normalisation layer is one whose class has `Norm` in its name: LayerNorm, RMSNorm and those of other libraries.
    """
    norms = [name for name, module in model.named_modules() if "norm" in type(module).__name__.lower()]
    inside = tuple(f"{name}." for name in norms)
    return {
        name for name, _ in model.named_parameters() if name.endswith("bias") or (inside and name.startswith(inside))
    }


@dataclass(frozen=True, kw_only=True)
class Schedule(CheckedOptions):
    """Learning-rate schedule `name` of `transformers.get_scheduler`; `warmup` is a fraction of all steps, rounded up.

    Raises:
        ValueError: if `warmup` is outside [0, 1) or transformers has no schedule of that name.
    """

    config_group: ClassVar[str] = "scheduler"

    name: ScheduleName = "linear"
    warmup: Fraction = 0.0

    def build(self, optimizer: Optimizer, total_steps: int) -> LRScheduler:
        """Return the schedule for `total_steps` optimizer steps."""
        return get_scheduler(self.name, optimizer, math.ceil(self.warmup * total_steps), total_steps)
