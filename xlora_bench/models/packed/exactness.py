"""Check before training that the packed layout of a batch gives the same logits as the padded layout."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from xlora_bench.adapters.delta import autocast_enabled
from xlora_bench.data.packing.packed import Batch
from xlora_bench.data.tokenize import Example
from xlora_bench.models.packed.forward import forward
from xlora_bench.models.packed.structure import classifier_of, has_windows

Collator = Callable[[Sequence[Example]], Batch]
Precision = Callable[[], AbstractContextManager[Any]]


def verify(
    model: nn.Module,
    *,
    examples: Sequence[Example],
    padded: Collator,
    packed: Collator,
    tolerance: float | None = None,
    precision: Precision = nullcontext,
) -> str | None:
    """Return why the packed logits of `examples` differ from the padded ones, or None if they agree.

    Both are computed on the device of `model`, in its dtype and within the context `precision()`, such as autocast.
    The packed ones are computed with and without gradients, which may use other kernels.

    They agree if the largest difference is at most `tolerance` times the spread of the padded logits over the
    sentences. The spread, unlike the size of the logits, does not depend on the bias of the head. The default tolerance
    is 1e-3, or 0.1 in 16 bits and under autocast. Dropout is off during the check. Train modes and random generators
    are restored.
    """
    if has_windows(classifier_of(model)):
        return "its layers have different attention windows, which need more than one mask"
    batches = padded(examples), packed(examples)
    try:
        with _evaluating(model), precision():
            expected, actual = (_logits(model, batch) for batch in batches)
            tolerance = _tolerance(model) if tolerance is None else tolerance
            with torch.enable_grad():
                as_trained = _logits(model, batches[1]).detach()
    except (TypeError, ValueError, RuntimeError, IndexError, AttributeError, NotImplementedError) as error:
        return f"its forward does not run on packed rows ({type(error).__name__}: {_first_line(error)})"
    return _difference(expected, actual, tolerance) or _difference(expected, as_trained, tolerance)


def _difference(expected: Tensor, actual: Tensor, tolerance: float) -> str | None:
    if expected.shape != actual.shape:
        return f"its packed logits have shape {tuple(actual.shape)} instead of {tuple(expected.shape)}"
    spread = (expected.amax(0) - expected.amin(0)).amax().item()
    if not spread > 0:
        return "its logits are the same for every sentence, so that the layouts cannot be told apart"
    error = (actual - expected).abs().amax().item() / spread
    if error <= tolerance:
        return None
    return f"its packed logits are off by {error:.1e} of their spread (at most {tolerance:.0e} is rounding)"


def _tolerance(model: nn.Module) -> float:
    weights = [weight for weight in model.parameters() if weight.is_floating_point()]
    exact = all(weight.dtype.itemsize >= 4 and not autocast_enabled(weight.device) for weight in weights)
    return 1e-3 if exact else 0.1


def _logits(model: nn.Module, batch: Batch) -> Tensor:
    device = next(model.parameters()).device
    moved = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in batch.items()}
    return forward(model, moved).float()


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Turn dropout and gradients off. Restore the mode of every module and the state of the generators afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    devices = {weight.device for weight in model.parameters() if weight.is_cuda}
    try:
        with torch.random.fork_rng(devices=devices), torch.no_grad():
            model.eval()
            yield
    finally:
        for module, training in modes:
            module.training = training


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "")
