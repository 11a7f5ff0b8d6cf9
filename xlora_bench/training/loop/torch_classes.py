"""Optimizers and schedules of torch or of the user, named by their class; made when there are parameters."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import or_
from types import GenericAlias, UnionType
from typing import Any, Union, get_args, get_origin

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from xlora_bench.system.options import (
    NonNegative,
    OptionsError,
    Positive,
    Signature,
    fault,
    option_faults,
    signature_of,
)
from xlora_bench.training.loop.optimizers import parameter_groups

BY_GROUP: Mapping[str, Any] = {"lr": Positive, "head_lr": Positive | None, "weight_decay": NonNegative}
"""Options of every optimizer, which differ by parameter group."""
STEPS = ("total_steps", "T_max")
"""Options of torch's schedules that are the number of all steps, unless the config sets them."""


@dataclass(frozen=True, kw_only=True)
class TorchOptimizer:
    """The optimizer class `kind` with its `options`; a `weight_decay` of None: the class has no such option."""

    kind: type[Optimizer]
    lr: float
    head_lr: float | None
    weight_decay: float | None
    options: Mapping[str, Any]

    @classmethod
    def of(cls, kind: type[Optimizer], options: Mapping[str, Any]) -> "TorchOptimizer":
        """Return the optimizer with the `options` of a config.

        Raises:
            OptionsError: if an option is none of the class, is of a wrong type, or cannot train two parameters.
        """
        known = keywords_of(kind)
        allowed = {**known.annotations, **BY_GROUP}
        if "weight_decay" not in known.annotations and not known.open and options.get("weight_decay") == 0:
            options = {key: value for key, value in options.items() if key != "weight_decay"}
        elif "weight_decay" not in known.annotations and not known.open:
            del allowed["weight_decay"]
        if "lr" not in known.annotations and not known.open:
            rule = "has no option `lr`; choose an optimizer that has one, such as optimizer=adamw"
            raise OptionsError([fault("optimizer._target_", path_of(kind), rule)])
        signature = Signature(allowed, known.required | {"lr"}, known.open)
        check(kind, options, signature, group="optimizer")
        made = cls(
            kind=kind,
            lr=options["lr"],
            head_lr=options.get("head_lr"),
            weight_decay=options.get("weight_decay", default_of(kind, "weight_decay")),
            options={key: value for key, value in options.items() if key not in BY_GROUP},
        )
        try_out(made.step_once, made.faulty_option, kind, group="optimizer")
        return made

    def build(
        self, model: nn.Module, head: Iterable[str], lr_ratios: Mapping[str, float], *, fused: bool = True
    ) -> Optimizer:
        """Return the optimizer, see `AdamW.build`; `fused` is for AdamW alone."""
        groups = parameter_groups(
            model, head, lr_ratios, lr=self.lr, head_lr=self.head_lr, weight_decay=self.weight_decay
        )
        return self.kind(groups, lr=self.lr, **self.options)  # type: ignore[call-arg]

    def step_once(self) -> None:
        """Take one step with a weight and a bias, each in a group of its own."""
        model = nn.Linear(2, 2)
        optimizer = self.build(model, {"bias"}, {"weight": 2.0})
        optimizer.step(lambda: backward(model, optimizer))

    def faulty_option(self) -> tuple[str, Any] | None:
        """Return the first option that the class does not take even alone."""
        for key, value in self.options.items():
            try:
                self.kind([nn.Parameter(torch.zeros(2, 2))], lr=self.lr, **{key: value})  # type: ignore[call-arg]
            except Exception:
                return key, value
        return None


@dataclass(frozen=True, kw_only=True)
class TorchSchedule:
    """The schedule class `kind` with its `options`; it advances every optimizer step."""

    kind: type[LRScheduler]
    options: Mapping[str, Any]

    @classmethod
    def of(cls, kind: type[LRScheduler], options: Mapping[str, Any]) -> "TorchSchedule":
        """Return the schedule with the `options` of a config.

        Raises:
            OptionsError: if an option is none of the class, is of a wrong type, or does not work.
        """
        known = keywords_of(kind)
        signature = Signature(known.annotations, known.required - set(STEPS), known.open)
        check(kind, options, signature, group="scheduler")
        made = cls(kind=kind, options=dict(options))
        try_out(made.step_once, lambda: None, kind, group="scheduler")
        return made

    def build(self, optimizer: Optimizer, total_steps: int) -> LRScheduler:
        """Return the schedule for `total_steps` optimizer steps."""
        known = keywords_of(self.kind).annotations
        steps = {name: total_steps for name in STEPS if name in known and name not in self.options}
        return self.kind(optimizer, **steps, **self.options)

    def step_once(self) -> None:
        """Advance by one of three steps."""
        model = nn.Linear(2, 2)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
        schedule = self.build(optimizer, 3)
        backward(model, optimizer)
        optimizer.step()
        schedule.step()


def torch_class(kind: type, options: Mapping[str, Any]) -> TorchOptimizer | TorchSchedule | None:
    """Return the optimizer or schedule of a class of torch or one derived from it; None for any other class.

    Raises:
        OptionsError: if an option is wrong.
    """
    if issubclass(kind, Optimizer):
        return TorchOptimizer.of(kind, options)
    return TorchSchedule.of(kind, options) if issubclass(kind, LRScheduler) else None


def keywords_of(kind: type) -> Signature:
    """Return the options of `kind` without its first parameter: the parameters, or the optimizer."""
    signature = signature_of(kind)
    first = next(iter(signature.annotations), "")
    annotations = {name: without_tensors(one) for name, one in signature.annotations.items() if name != first}
    return Signature(annotations, signature.required - {first}, signature.open)


def default_of(kind: type, option: str) -> Any:
    """Return the default of an option; None if there is none."""
    parameter = inspect.signature(kind).parameters.get(option)
    return None if parameter is None or parameter.default is inspect.Parameter.empty else parameter.default


def without_tensors(annotation: Any) -> Any:
    """Return a type without the tensors that torch takes beside numbers, which no config can hold."""
    inner = tuple(without_tensors(one) for one in get_args(annotation) if one is not Tensor)
    if get_origin(annotation) in (Union, UnionType):
        return reduce(or_, inner)
    return GenericAlias(tuple, inner) if get_origin(annotation) is tuple else annotation


def check(kind: type, options: Mapping[str, Any], signature: Signature, *, group: str) -> None:
    """Raise an OptionsError for the options that are none of `signature`, with the way to remove them."""
    unknown = {} if signature.open else {key: one for key, one in options.items() if key not in signature.annotations}
    names = ", ".join(sorted(signature.annotations))
    faults = [
        fault(f"{group}.{key}", value, f"is not an option of {path_of(kind)}, which has {names}; remove ~{group}.{key}")
        for key, value in unknown.items()
    ]
    known = {key: value for key, value in options.items() if key not in unknown}
    if faults := [*faults, *option_faults(kind, known, group=group, signature=signature)]:
        raise OptionsError(faults)


def try_out(
    step: Callable[[], None], faulty_option: Callable[[], tuple[str, Any] | None], kind: type, *, group: str
) -> None:
    """Call `step`; an error becomes an OptionsError that names an option. No random number of the program is drawn."""
    try:
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            step()
    except Exception as error:
        key, value = faulty_option() or ("_target_", path_of(kind))
        reason = str(error).partition("\n")[0]
        rule = f"does not work with {path_of(kind)} ({reason}); change it, or choose another {group}"
        raise OptionsError([fault(f"{group}.{key}", value, rule)]) from error


def backward(model: nn.Module, optimizer: Optimizer) -> float:
    """Compute the gradients of a loss, and return the loss."""
    optimizer.zero_grad()
    loss = model(torch.ones(1, 2)).square().sum()
    loss.backward()
    return loss.item()


def path_of(kind: type) -> str:
    """Return the name of a class in messages."""
    is_public = getattr(torch.optim, kind.__name__, None) is kind
    return f"{'torch.optim' if is_public else kind.__module__}.{kind.__name__}"
