"""X-LoRA's methods (baseline, svd, ortho, struct) on a small classifier.

python examples/xlora_methods.py
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import BertConfig, BertForSequenceClassification

from xlora_bench import LU, Cholesky, LoRA, Orthogonal, OrthogonalQR, SVDInit, Targets, inject

TARGETS = Targets(modules=["query", "key", "value"])
SIZES = BertConfig(
    vocab_size=50,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=48,
    max_position_embeddings=12,
    initializer_range=0.2,
)


def baseline(model: nn.Module) -> nn.Module:
    """`--method baseline`: LoRA with B0 = 0."""
    return inject.inject(model, LoRA(rank=8, alpha=16), targets=TARGETS)


def svd(model: nn.Module) -> nn.Module:
    """`--method svd --mode left`: LoRA with an SVD init; other values of `sigma`: right, both, dropped."""
    return inject.inject(model, LoRA(rank=8, alpha=16), targets=TARGETS, init_scheme=SVDInit(sigma="left"))


def ortho_penalty(model: nn.Module) -> nn.Module:
    """`--method ortho --orthogonal_lambda 0.1`: a penalty on B^T B - I."""
    return inject.inject(model, Orthogonal(rank=8, alpha=16, penalty_weight=0.1), targets=TARGETS)


def ortho_qr(model: nn.Module) -> nn.Module:
    """`--method ortho --use_qr true --qr_frequency 5`: B is retracted to orthonormal columns every five steps."""
    return inject.inject(model, OrthogonalQR(rank=8, alpha=16, frequency=5), targets=TARGETS)


def struct_lu(model: nn.Module) -> nn.Module:
    """`--method struct --structure_type lu`: triangular factors."""
    return inject.inject(model, LU(rank=8, alpha=16), targets=TARGETS)


def struct_cholesky(model: nn.Module) -> nn.Module:
    """`--method struct --structure_type cholesky`: one triangular factor and its transpose."""
    return inject.inject(model, Cholesky(rank=8, alpha=16), targets=TARGETS)


METHODS: tuple[Callable[[nn.Module], nn.Module], ...] = (
    baseline,
    svd,
    ortho_penalty,
    ortho_qr,
    struct_lu,
    struct_cholesky,
)


@dataclass(frozen=True, kw_only=True)
class Result:
    """The values that are printed for one method."""

    unchanged_at_start: bool
    parameters: int
    losses: list[float]
    orthonormality_error: float | None
    """`max |B^T B - I|` after training, where B is one factor."""


def classifier() -> nn.Module:
    """Return the same small BERT each time."""
    torch.manual_seed(0)
    return BertForSequenceClassification(SIZES).eval()


def sentences() -> tuple[Tensor, Tensor]:
    """Return ids `(16, 12)` and classes `(16,)`."""
    ids = torch.randint(1, 50, (16, 12), generator=torch.Generator().manual_seed(1))
    return ids, (ids[:, 0] > 25).long()


def trained(model: nn.Module, ids: Tensor, classes: Tensor, *, steps: int) -> list[float]:
    """Train with the penalty and `post_optimizer_step` of the method; return the task losses."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-3)
    losses = []
    for step in range(1, steps + 1):
        loss = F.cross_entropy(model(input_ids=ids).logits, classes)
        penalty = inject.penalty(model)
        (loss if penalty is None else loss + penalty).backward()
        optimizer.step()
        inject.post_optimizer_step(model, step)
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def run(method: Callable[[nn.Module], nn.Module]) -> Result:
    """Add an adapter by one method and train it."""
    model, (ids, classes) = classifier(), sentences()
    with torch.no_grad():
        base = model(ids).logits
    model = method(model)
    with torch.no_grad():
        unchanged = torch.equal(model(ids).logits, base)
    losses = trained(model, ids, classes, steps=20)
    factors = [getattr(delta, "lora_B", None) for delta in inject.deltas(model).values()]
    grams = [B.T @ B - torch.eye(8) for B in factors if isinstance(B, Tensor)]
    return Result(
        unchanged_at_start=unchanged,
        parameters=inject.parameter_count(model),
        losses=losses,
        orthonormality_error=max(gram.abs().max().item() for gram in grams) if grams else None,
    )


def main() -> dict[str, Result]:
    """Run all methods and print a table."""
    results = {method.__name__: run(method) for method in METHODS}
    table = Table("method", "same at 0", "parameters", "first loss", "last loss", "|B^T B - I|")
    for name, result in results.items():
        error = "-" if result.orthonormality_error is None else f"{result.orthonormality_error:.1e}"
        first, last = (f"{result.losses[index]:.4f}" for index in (0, -1))
        table.add_row(name, str(result.unchanged_at_start), str(result.parameters), first, last, error)
    Console().print(table)
    return results


if __name__ == "__main__":
    main()
