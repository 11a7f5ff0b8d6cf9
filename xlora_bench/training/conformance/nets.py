"""The small model on which variants are proved: one target layer, frozen layers around it, and a head."""

import math

import torch
from torch import Tensor, nn

from xlora_bench.adapters import Adapter
from xlora_bench.inject.methods import Method, as_method
from xlora_bench.inject.targets import Targets
from xlora_bench.training.conformance.layer_kinds import Kind

TARGETS = Targets(modules=["target"])


class KindNet(nn.Module):
    """A body of one target layer between two frozen ones, and a head, as Hugging Face models have them."""

    base_model_prefix = "body"

    def __init__(
        self, kind: Kind, *, dtype: torch.dtype = torch.float32, autocast_dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        self.kind, self.autocast_dtype = kind, autocast_dtype
        with torch.random.fork_rng():
            torch.manual_seed(0)
            target = kind.make()
            size = target(kind.fed(torch.zeros(1, math.prod(kind.row)))).numel()
            self.body = nn.ModuleDict(
                {"before": nn.Linear(10, math.prod(kind.row)), "target": target, "after": nn.Linear(size, 6)}
            ).to(dtype)
            self.head = nn.Linear(6, 3).to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Return `(n, 3)` for `x (n, 10)`, under autocast if the model has a dtype for it."""
        with autocast(x.device.type, self.autocast_dtype):
            hidden = self.kind.fed(torch.tanh(self.body["before"](x)))
            return self.head(torch.tanh(self.body["after"](self.body["target"](hidden).flatten(1))))


def autocast(device: str, dtype: torch.dtype | None) -> torch.autocast:
    """Return the autocast context of a dtype; None: without autocast."""
    return torch.autocast(device, dtype=dtype, enabled=dtype is not None)


def inputs(rows: int = 7, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return a fixed batch `(rows, 10)`."""
    return torch.randn(rows, 10, generator=torch.Generator().manual_seed(1)).to(dtype)


def train(
    net: nn.Module, x: Tensor, *, steps: int, method: Adapter | Method | None = None, lr: float = 1e-2
) -> list[float]:
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
