"""Frozen weights quantised by torchao: a tensor subclass inside an ordinary `nn.Linear`."""

from torch import Tensor, nn

PLAIN = (Tensor, nn.Parameter)


def is_quantized(weight: Tensor) -> bool:
    """Return whether `weight` is a quantised tensor of torchao. Checks the module name; does not import torchao."""
    return type(weight) not in PLAIN and any(
        base.__module__.partition(".")[0] == "torchao" for base in type(weight).__mro__
    )


def dequantized(weight: Tensor) -> Tensor:
    """Return `weight`, dequantised if it is quantised."""
    return weight.dequantize() if is_quantized(weight) else weight
