"""Asymmetric LoRA on a small GPT-2: A is random, orthonormal and frozen; B is trained from zero.

    python examples/asymmetric_gpt2.py

The projections of GPT-2 are transformers' `Conv1D`, which stores its weight transposed. No option is needed for it.
"""

from dataclasses import dataclass

import torch
from rich.console import Console
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import GPT2Config, GPT2LMHeadModel

from xlora_bench import Asymmetric, Targets, inject

RANK = 4
SIZES = GPT2Config(
    vocab_size=40,
    n_positions=12,
    n_embd=32,
    n_layer=2,
    n_head=4,
    bos_token_id=0,
    eos_token_id=0,
    initializer_range=0.2,
)


@dataclass(frozen=True, kw_only=True)
class Result:
    """The values that are printed."""

    unchanged_at_start: bool
    trained: dict[str, int]
    frozen_A_unchanged: bool
    A_orthonormal: bool
    losses: list[float]


def sentences() -> Tensor:
    """Return ids `(8, 12)` of sequences that count upwards from a random start."""
    starts = torch.randint(1, 28, (8, 1), generator=torch.Generator().manual_seed(1))
    return starts + torch.arange(12)


def trained(model: nn.Module, ids: Tensor, *, steps: int) -> list[float]:
    """Train the parameters that require gradients on next-token prediction; return the losses."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(steps):
        loss = F.cross_entropy(model(ids).logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def run() -> Result:
    """Add the adapter and train it."""
    torch.manual_seed(0)
    model = GPT2LMHeadModel(SIZES).eval()
    ids = sentences()
    with torch.no_grad():
        base = model(ids).logits

    adapter = Asymmetric(rank=RANK, alpha=2 * RANK, spec="A_rand_hB_zero")  # h marks the factor that trains
    generator = torch.Generator().manual_seed(0)
    model = inject.inject(model, adapter, targets=Targets(modules=["c_attn"]), generator=generator)
    with torch.no_grad():
        unchanged = torch.equal(model(ids).logits, base)
    names = {name: parameter.numel() for name, parameter in model.named_parameters() if parameter.requires_grad}
    frozen = [delta.lora_A for delta in inject.deltas(model).values()]
    before = [A.clone() for A in frozen]
    losses = trained(model, ids, steps=40)
    return Result(
        unchanged_at_start=unchanged,
        trained=names,
        frozen_A_unchanged=all(torch.equal(A, old) for A, old in zip(frozen, before, strict=True)),
        A_orthonormal=all(torch.allclose(A @ A.T, torch.eye(RANK), atol=1e-5) for A in frozen),
        losses=losses,
    )


def main() -> Result:
    """Run and print the result."""
    result = run()
    say = Console().print
    say(f"logits unchanged at step 0: {result.unchanged_at_start}")
    say(f"trained: {result.trained}")
    say(f"A: orthonormal rows {result.A_orthonormal}, unchanged by training {result.frozen_A_unchanged}")
    say(f"loss: {result.losses[0]:.3f} -> {result.losses[-1]:.3f} in {len(result.losses)} steps")
    return result


if __name__ == "__main__":
    main()
