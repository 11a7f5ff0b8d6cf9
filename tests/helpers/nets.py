"""Small models for tests: those of the conformance suite, and one around a linear layer of any size."""

import torch
from torch import nn

from xlora_bench.training.conformance.layer_kinds import Kind
from xlora_bench.training.conformance.nets import TARGETS, KindNet, inputs, train

__all__ = ["TARGETS", "Net", "inputs", "train"]


class Net(KindNet):
    """A `KindNet` around a linear layer."""

    def __init__(
        self, out_features: int, in_features: int, *, dtype: torch.dtype = torch.float32, bias: bool = True
    ) -> None:
        make = lambda: nn.Linear(in_features, out_features, bias=bias)  # noqa: E731
        super().__init__(Kind(make=make, row=(in_features,)), dtype=dtype)
