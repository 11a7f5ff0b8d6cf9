"""A convolutional net with two adapters on one frozen base, used alone and summed.

    python examples/conv_styles.py

The base model returns its input. Each adapter learns to transform images in its own style.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from rich.console import Console
from torch import Tensor, nn
from torch.nn import functional as F

from xlora_bench import LoRA, Targets, inject

STYLES: dict[str, Callable[[Tensor], Tensor]] = {
    "surrealism": lambda x: x.roll(1, dims=1),  # red becomes green, green blue, blue red
    "pokemon": lambda x: F.avg_pool2d(x, 3, stride=1, padding=1),  # flat areas of colour
}
BOTH = list(STYLES)


@dataclass(frozen=True, kw_only=True)
class Result:
    """The values that are printed."""

    unchanged_at_start: bool
    losses: dict[str, list[float]]
    base_kept: bool
    order_does_not_matter: bool
    sum_error: float
    moved: dict[str, float]


def painter() -> nn.Sequential:
    """Return a net that is close to the identity on images `(n, 3, h, w)`."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.LeakyReLU(0.3), nn.Conv2d(12, 3, 3, padding=1))
    fit(net, images(), images(), parameters=list(net.parameters()), steps=60)
    return net


def images() -> Tensor:
    """Return random images `(8, 3, 8, 8)`."""
    return torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def fit(net: nn.Module, x: Tensor, target: Tensor, *, parameters: list[nn.Parameter], steps: int) -> list[float]:
    """Train `parameters` towards `target` and return the losses."""
    optimizer = torch.optim.AdamW(parameters, lr=2e-2)
    losses = []
    for _ in range(steps):
        loss = F.mse_loss(net(x), target)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def learn_styles(net: nn.Module, x: Tensor) -> dict[str, list[float]]:
    """Train each style's adapter alone, with its own optimizer, and return the losses."""
    losses = {}
    for name, paint in STYLES.items():
        with inject.use_adapters(net, name):
            losses[name] = fit(net, x, paint(x), parameters=inject.adapter_parameters(net, name), steps=60)
    return losses


def run() -> Result:
    """Add two adapters, train them, and use them alone and summed."""
    net, x = painter(), images()
    base = net(x).detach()
    for number, name in enumerate(STYLES):
        generator = torch.Generator().manual_seed(number)
        net = inject.add_adapter(net, name, LoRA(rank=3), targets=Targets(modules=["0", "2"]), generator=generator)
    unchanged = all(torch.equal(painted(net, x, styles), base) for styles in (*STYLES, BOTH))
    losses = learn_styles(net, x)

    with torch.no_grad():
        alone = {name: painted(net, x, name) for name in STYLES}
        summed = painted(net, x, BOTH)
        order = torch.equal(painted(net, x, BOTH[::-1]), summed)
        with inject.use_adapters(net, BOTH):
            inject.merge(net)  # W + both updates in one convolution
            error = (net(x) - summed).abs().max().item()
        moved = {name: F.mse_loss(output, base).item() for name, output in {**alone, "both": summed}.items()}
        return Result(
            unchanged_at_start=unchanged,
            losses=losses,
            base_kept=torch.equal(net(x), base),
            order_does_not_matter=order,
            sum_error=error,
            moved=moved,
        )


def painted(net: nn.Module, x: Tensor, styles: str | list[str]) -> Tensor:
    """Return the images in one style, or in the sum of several."""
    with inject.use_adapters(net, styles):
        return net(x)


def main() -> Result:
    """Run and print the result."""
    result = run()
    say = Console().print
    say(f"output unchanged at step 0, alone and summed: {result.unchanged_at_start}")
    for name, losses in result.losses.items():
        say(f"{name}: loss {losses[0]:.3f} -> {losses[-1]:.3f}")
    for name, distance in result.moved.items():
        say(f"{name}: squared distance from the base {distance:.2f}")
    say(f"order of the two does not matter: {result.order_does_not_matter}")
    say(f"summed differs from one convolution with W + both updates by at most {result.sum_error:.1e}")
    say(f"with none in use it is the base to the bit: {result.base_kept}")
    return result


if __name__ == "__main__":
    main()
