"""Monitor of the factors: norms and updates of every delta during training."""

import csv
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor
from torch.optim import Optimizer

from xlora_bench.inject import deltas
from xlora_bench.training.loop.module import Classifier

Factors = dict[str, tuple[Tensor, Tensor]]


class FactorMonitor(lightning.Callback):
    """Writes to `factors.csv` in `folder` one row per delta and observed step (every `every_n_steps` optimizer steps).

    With current factors `B (out, r)`, `A (r, in)` and scaling `s`, the columns are: `norm_B`, `norm_A` (Frobenius);
    `grad_norm`, the norm of the gradients of the delta's parameters before the step; `update_B`, `update_A`, `update`,
    `s` times the Frobenius norms of the two terms and of the sum in `d(B A) = d_B A_old + B_new d_A`, which is exact.
    No dense product is formed. The loggers get the means over modules.

    Raises:
        ValueError: if `every_n_steps` is less than 1.
    """

    def __init__(self, folder: Path, *, every_n_steps: int = 50) -> None:
        if every_n_steps < 1:
            raise ValueError(f"`trainer.monitor_every_n_steps` (={every_n_steps}) must be at least 1")
        self.path = folder / "factors.csv"
        self.every_n_steps = every_n_steps
        self._before: Factors = {}
        self._grad_norms: dict[str, float] = {}

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Classifier) -> None:  # type: ignore[override]
        """Delete the rows after the step of the checkpoint that the run resumes from; all rows without a checkpoint."""
        kept = []
        if self.path.exists() and trainer.ckpt_path is not None:
            with self.path.open(newline="") as file:
                kept = [row for row in csv.DictReader(file) if int(row["step"]) <= trainer.global_step]
        self.path.unlink(missing_ok=True)
        self._append(kept)

    def on_before_optimizer_step(  # type: ignore[override]
        self, trainer: lightning.Trainer, pl_module: Classifier, optimizer: Optimizer
    ) -> None:
        """Store factors and gradient norms before an observed step."""
        if (trainer.global_step + 1) % self.every_n_steps:
            return
        self._before = current_factors(pl_module.model)
        for name, delta in deltas(pl_module.model).items():
            grads = [p.grad.norm() for p in delta.parameters() if p.grad is not None]
            self._grad_norms[name] = torch.stack(grads).norm().item() if grads else 0.0

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: lightning.Trainer, pl_module: Classifier, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write the rows of an observed step, and log the means."""
        if not self._before:
            return
        after, scalings = current_factors(pl_module.model), deltas(pl_module.model)
        rows: list[dict[str, Any]] = [
            {"step": trainer.global_step, "module": name, "grad_norm": self._grad_norms[name]}
            | split_of_update(self._before[name], after[name], scalings[name].scaling)
            for name in after
        ]
        self._before = {}
        self._append(rows)
        for key in ("norm_B", "norm_A", "grad_norm", "update"):
            pl_module.log(f"factors/{key}", sum(row[key] for row in rows) / len(rows))

    def _append(self, rows: list[dict[str, Any]]) -> None:
        if not rows:
            return
        new = not self.path.exists()
        with self.path.open("a", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            if new:
                writer.writeheader()
            writer.writerows(rows)


@torch.no_grad()
def current_factors(model: torch.nn.Module) -> Factors:
    """Return copies of the current `(B, A)` of every delta of `model`, by module name."""
    factors = {name: delta.current_factors() for name, delta in deltas(model).items()}
    return {name: (B.detach().clone(), A.detach().clone()) for name, (B, A) in factors.items()}


def split_of_update(old: tuple[Tensor, Tensor], new: tuple[Tensor, Tensor], scaling: float) -> dict[str, float]:
    """Return the norms of the new factors and of the two terms of the update (see `FactorMonitor`)."""
    (B_old, A_old), (B_new, A_new) = old, new
    d_B, d_A = B_new - B_old, A_new - A_old
    whole = (torch.cat((d_B, B_new), dim=1), torch.cat((A_old, d_A)))
    return {
        "norm_B": B_new.norm().item(),
        "norm_A": A_new.norm().item(),
        "update_B": scaling * product_norm(d_B, A_old),
        "update_A": scaling * product_norm(B_new, d_A),
        "update": scaling * product_norm(*whole),
    }


def product_norm(B: Tensor, A: Tensor) -> float:
    """Return `||B A||_F` as `sqrt(trace((B^T B) (A A^T)))`, in fp64: only r x r matrices are formed."""
    B, A = B.double(), A.double()
    return ((B.T @ B) * (A @ A.T)).sum().clamp_min(0).sqrt().item()
