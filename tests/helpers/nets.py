"""Small models for tests."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from xlora_bench.inject.methods import as_method
from xlora_bench.inject.targets import Targets

TARGETS = Targets(modules=["target"])


def reshaped(matrix: Tensor, weight: Tensor) -> Tensor:
    """Return an `(out, in)` matrix in the shape of a weight whose first axis is `out`."""
    return matrix.reshape(weight.shape)


def transposed(matrix: Tensor, weight: Tensor) -> Tensor:
    """Return an `(out, in)` matrix as the weight of a layer that stores its transpose."""
    return matrix.T


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A type of target layer: how to make it, one row of its input, the layout of its weight, the ids of its table."""

    make: Callable[[], nn.Module]
    row: tuple[int, ...]
    as_weight: Callable[[Tensor, Tensor], Tensor] = reshaped
    ids: int = 0

    def fed(self, hidden: Tensor) -> Tensor:
        """Return the layer's input for `hidden (n, size of a row)`; for an embedding, ids that cover the table."""
        if self.ids:
            return torch.arange(hidden.numel()).view(hidden.shape) % self.ids
        return hidden.view(-1, *self.row)


# All but the linear_* ones and the embedding have a 24 x 24 matrix view, so that square-only variants fit them.
KINDS = {
    "linear": Kind(make=lambda: nn.Linear(24, 24), row=(24,)),
    "linear_tall": Kind(make=lambda: nn.Linear(24, 40, bias=False), row=(24,)),
    "linear_wide": Kind(make=lambda: nn.Linear(40, 24), row=(40,)),
    "embedding": Kind(make=lambda: nn.Embedding(40, 24), row=(6,), as_weight=transposed, ids=40),
    "conv1d": Kind(make=lambda: nn.Conv1d(8, 24, 3, padding="same", padding_mode="circular"), row=(8, 5)),
    "conv2d": Kind(make=lambda: nn.Conv2d(4, 24, (2, 3), stride=2, dilation=(1, 2), padding=1), row=(4, 4, 5)),
    "conv2d_groups": Kind(make=lambda: nn.Conv2d(12, 24, 2, groups=2, bias=False), row=(12, 3, 2)),
    "conv3d": Kind(make=lambda: nn.Conv3d(3, 24, 2, padding=1, padding_mode="replicate"), row=(3, 2, 1, 2)),
    "gpt2_conv1d": Kind(make=lambda: Conv1D(24, 24), row=(24,), as_weight=transposed),
}


class KindNet(nn.Module):
    """A body of one target layer between two frozen ones, and a head, as Hugging Face models have them."""

    base_model_prefix = "body"

    def __init__(self, kind: Kind, *, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.kind = kind
        with torch.random.fork_rng():
            torch.manual_seed(0)
            target = kind.make()
            size = target(kind.fed(torch.zeros(1, math.prod(kind.row)))).numel()
            self.body = nn.ModuleDict(
                {"before": nn.Linear(10, math.prod(kind.row)), "target": target, "after": nn.Linear(size, 6)}
            ).to(dtype)
            self.head = nn.Linear(6, 3).to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Return `(n, 3)` for `x (n, 10)`."""
        hidden = self.kind.fed(torch.tanh(self.body["before"](x)))
        return self.head(torch.tanh(self.body["after"](self.body["target"](hidden).flatten(1))))


class Net(KindNet):
    """A `KindNet` around a linear layer."""

    def __init__(
        self, out_features: int, in_features: int, *, dtype: torch.dtype = torch.float32, bias: bool = True
    ) -> None:
        make = lambda: nn.Linear(in_features, out_features, bias=bias)  # noqa: E731
        super().__init__(Kind(make=make, row=(in_features,)), dtype=dtype)


def inputs(rows: int = 7, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return a fixed batch `(rows, 10)`."""
    return torch.randn(rows, 10, generator=torch.Generator().manual_seed(1)).to(dtype)


def train(net: nn.Module, x: Tensor, *, steps: int, method: object = None, lr: float = 1e-2) -> list[float]:
    """Take AdamW steps towards a fixed target and return the losses."""
    optimizer = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], lr=lr)
    losses = []
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        loss = (net(x).float() - 1.0).square().mean()
        loss.backward()
        optimizer.step()
        if method is not None:
            as_method(method).post_optimizer_step(net, step)
        losses.append(loss.item())
    return losses
