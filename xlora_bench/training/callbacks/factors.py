"""Monitor of the factors: norms and updates of every delta during training."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from xlora_bench.adapters.delta import Delta
from xlora_bench.inject import deltas
from xlora_bench.system.io import replacing
from xlora_bench.training.loop.module import Classifier

Factors = dict[str, tuple[Tensor, Tensor]]
MEANS = ("norm_B", "norm_A", "grad_norm_B", "grad_norm_A", "grad_norm", "change_B", "change_A", "update")
"""Columns whose means over the modules are logged."""


class FactorMonitor(lightning.Callback):
    """Writes to `factors.csv` in `folder` one row per delta and observed step (every `every_n_steps` optimizer steps).

    With current factors `B (out, r)`, `A (r, in)` and scaling `s`, the columns are, all Frobenius norms: `norm_B`,
    `norm_A` after the step; `change_B`, `change_A` of `d_B = B_new - B_old` and `d_A`; `grad_norm_B`, `grad_norm_A`, of
    the gradients before the step of the parameters that B or A is computed from (the factor itself in LoRA), and
    `grad_norm` of those of all parameters of the delta; `update_B`, `update_A`, `update`, `s` times the norms of the
    two terms and of the sum in `d(B A) = d_B A_old + B_new d_A`, which is exact. No dense product is formed.

    Raises:
        ValueError: if `every_n_steps` is less than 1.
    """

    def __init__(self, folder: Path, *, every_n_steps: int = 50) -> None:
        if every_n_steps < 1:
            raise ValueError(f"`trainer.monitor_every_n_steps` (={every_n_steps}) must be at least 1")
        self.path = folder / "factors.csv"
        self.every_n_steps = every_n_steps
        self._before: Factors = {}
        self._gradients: dict[str, dict[str, Tensor]] = {}

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Classifier) -> None:  # type: ignore[override]
        """Delete the rows after the step of the checkpoint that the run resumes from; all rows without a checkpoint."""
        kept = []
        if self.path.exists() and trainer.ckpt_path is not None:
            with self.path.open(newline="") as file:
                kept = [row for row in csv.DictReader(file) if int(row["step"]) <= trainer.global_step]
        if not kept:
            self.path.unlink(missing_ok=True)
            return
        with replacing(self.path) as temporary:  # a kill leaves the old rows
            append(temporary, kept)

    def on_before_optimizer_step(  # type: ignore[override]
        self, trainer: lightning.Trainer, pl_module: Classifier, optimizer: Optimizer
    ) -> None:
        """Store factors and gradient norms before an observed step."""
        if (trainer.global_step + 1) % self.every_n_steps:
            return
        self._before = current_factors(pl_module.model)
        self._gradients = {name: gradient_norms(delta) for name, delta in deltas(pl_module.model).items()}

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: lightning.Trainer, pl_module: Classifier, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write the rows of an observed step, and log the means."""
        if not self._before:
            return
        after, scalings = current_factors(pl_module.model), deltas(pl_module.model)
        norms = {
            name: self._gradients[name] | split_of_update(self._before[name], after[name], scalings[name].scaling)
            for name in after
        }
        self._before = {}
        columns = list(next(iter(norms.values())))
        values = torch.stack([row[column].double() for row in norms.values() for column in columns])
        table = values.view(len(norms), len(columns)).cpu()  # the device is waited for once
        rows = [
            {"step": trainer.global_step, "module": name, **dict(zip(columns, line, strict=True))}
            for name, line in zip(norms, table.tolist(), strict=True)
        ]
        append(self.path, rows)
        for column, mean in zip(columns, table.mean(0).tolist(), strict=True):
            if column in MEANS:
                pl_module.log(f"factors/{column}", mean)


def append(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Append rows to a CSV file; a new one gets a header."""
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        if new:
            writer.writeheader()
        writer.writerows(rows)


@torch.no_grad()
def current_factors(model: torch.nn.Module) -> Factors:
    """Return copies of the current `(B, A)` of every delta of `model`, by module name."""
    factors = {name: delta.current_factors() for name, delta in deltas(model).items()}
    return {name: (B.detach().clone(), A.detach().clone()) for name, (B, A) in factors.items()}


def gradient_norms(delta: Delta) -> dict[str, Tensor]:
    """Return the norms of the gradients of a delta's parameters: those of B, those of A, and all (`FactorMonitor`)."""
    with torch.enable_grad():
        factors = delta.current_factors()
    parts = dict(zip(("grad_norm_B", "grad_norm_A"), (sources(delta, factor) for factor in factors), strict=True))
    parts["grad_norm"] = list(delta.parameters())
    return {name: norm_of_gradients(parameters, like=factors[0]) for name, parameters in parts.items()}


def sources(delta: Delta, factor: Tensor) -> list[Parameter]:
    """Return the parameters of `delta` that `factor` is computed from."""
    trained = [parameter for parameter in delta.parameters() if parameter.requires_grad]
    if not factor.requires_grad:
        return []
    gradients = torch.autograd.grad(factor.sum(), trained, allow_unused=True, retain_graph=True)  # of both factors
    return [parameter for parameter, gradient in zip(trained, gradients, strict=True) if gradient is not None]


def norm_of_gradients(parameters: Sequence[Parameter], *, like: Tensor) -> Tensor:
    """Return the norm of all gradients of `parameters`, 0 if there are none, on the device of `like`."""
    norms = [parameter.grad.norm() for parameter in parameters if parameter.grad is not None]
    return torch.stack(norms).norm() if norms else torch.zeros((), device=like.device)


def split_of_update(old: tuple[Tensor, Tensor], new: tuple[Tensor, Tensor], scaling: float) -> dict[str, Tensor]:
    """Return the norms of the new factors, of their changes, and of the update and its terms (see `FactorMonitor`)."""
    (B_old, A_old), (B_new, A_new) = old, new
    d_B, d_A = B_new - B_old, A_new - A_old
    whole = (torch.cat((d_B, B_new), dim=1), torch.cat((A_old, d_A)))
    return {
        "norm_B": B_new.norm(),
        "norm_A": A_new.norm(),
        "change_B": d_B.norm(),
        "change_A": d_A.norm(),
        "update_B": scaling * product_norm(d_B, A_old),
        "update_A": scaling * product_norm(B_new, d_A),
        "update": scaling * product_norm(*whole),
    }


def product_norm(B: Tensor, A: Tensor) -> Tensor:
    """Return `||B A||_F` as `sqrt(trace((B^T B) (A A^T)))`, in fp64: only r x r matrices are formed."""
    B, A = B.double(), A.double()
    return ((B.T @ B) * (A @ A.T)).sum().clamp_min(0).sqrt()
