"""A frozen weight that is stored in 8 or 4 bits, as torchao leaves it: a tensor subclass in an ordinary `nn.Linear`."""

from torch import Tensor, nn

PLAIN = (Tensor, nn.Parameter)


def is_quantized(weight: Tensor) -> bool:
    """Whether `weight` is one of torchao's quantised tensors; by name, so that torchao need not be installed."""
    return type(weight) not in PLAIN and any(
        base.__module__.partition(".")[0] == "torchao" for base in type(weight).__mro__
    )


def dequantized(weight: Tensor) -> Tensor:
    """Return `weight` as plain numbers; a plain weight is returned as it is."""
    return weight.dequantize() if is_quantized(weight) else weight
