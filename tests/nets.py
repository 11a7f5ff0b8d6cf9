"""Small models for tests."""

import torch
from torch import Tensor, nn

from xlora_bench.targets import Targets

TARGETS = Targets(modules=["target"])
SHAPES = {"square": (24, 24), "tall": (40, 24), "wide": (24, 40)}


class Net(nn.Module):
    """A body of one target layer between two frozen ones, and a head, as Hugging Face models have them."""

    base_model_prefix = "body"

    def __init__(
        self, out_features: int, in_features: int, *, dtype: torch.dtype = torch.float32, bias: bool = True
    ) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.body = nn.ModuleDict(
                {
                    "before": nn.Linear(10, in_features),
                    "target": nn.Linear(in_features, out_features, bias=bias),
                    "after": nn.Linear(out_features, 6),
                }
            ).to(dtype)
            self.head = nn.Linear(6, 3).to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Return `(n, 3)` for `x (n, 10)`."""
        hidden = torch.tanh(self.body["before"](x))
        return self.head(torch.tanh(self.body["after"](self.body["target"](hidden))))


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
            method.after_step(net, step)
        losses.append(loss.item())
    return losses
