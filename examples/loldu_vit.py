"""LoLDU on a vision transformer: query and value, r = alpha = full rank; only the diagonals z train.

python examples/loldu_vit.py
"""

from dataclasses import dataclass

import torch
from rich.console import Console
from torch import Tensor, nn
from transformers import ViTConfig, ViTForImageClassification

from xlora_bench import LoLDU, Targets, inject

WIDTH = 32
# Large initial weights replace pretrained ones: with the usual 0.02, attention hardly changes the logits.
SIZES = ViTConfig(
    hidden_size=WIDTH,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=64,
    image_size=16,
    patch_size=4,
    num_labels=3,
    initializer_range=0.3,
)


@dataclass(frozen=True, kw_only=True)
class Result:
    """The values that are printed."""

    unchanged_at_start: bool
    trained: dict[str, int]
    losses: list[float]
    merging_error: float
    base_restored: bool


def images() -> tuple[Tensor, Tensor]:
    """Return 24 random images `(24, 3, 16, 16)` and their classes."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(24, 3, 16, 16, generator=generator), torch.arange(24) % 3


def trained(model: nn.Module, x: Tensor, classes: Tensor, *, steps: int) -> list[float]:
    """Train the parameters that require gradients; return the losses."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-2)
    losses = []
    for _ in range(steps):
        loss = model(pixel_values=x, labels=classes).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def run() -> Result:
    """Add the adapter, train it, merge it, remove it."""
    torch.manual_seed(0)
    model = ViTForImageClassification(SIZES).eval()
    x, classes = images()
    with torch.no_grad():
        base = model(x).logits

    # The head is frozen like everything else; model.classifier.requires_grad_(True) would let it train.
    model = inject.inject(model, LoLDU(rank=WIDTH, alpha=WIDTH), targets=Targets(modules=["q_proj", "v_proj"]))
    with torch.no_grad():
        unchanged = torch.equal(model(x).logits, base)
    names = {name: parameter.numel() for name, parameter in model.named_parameters() if parameter.requires_grad}
    losses = trained(model, x, classes, steps=40)

    with torch.no_grad():
        adapted = model(x).logits
        inject.merge(model)
        error = (model(x).logits - adapted).abs().max().item()
        model = inject.remove(model)
        restored = torch.equal(model(x).logits, base)
    return Result(
        unchanged_at_start=unchanged, trained=names, losses=losses, merging_error=error, base_restored=restored
    )


def main() -> Result:
    """Run and print the result."""
    result = run()
    say = Console().print
    say(f"logits unchanged at step 0: {result.unchanged_at_start}")
    say(f"trained: {sum(result.trained.values())} numbers in {len(result.trained)} vectors z")
    say(f"loss: {result.losses[0]:.3f} -> {result.losses[-1]:.3f} in {len(result.losses)} steps")
    say(f"merged differs from adapted by at most {result.merging_error:.1e}")
    say(f"removed, it is the base to the bit: {result.base_restored}")
    return result


if __name__ == "__main__":
    main()
