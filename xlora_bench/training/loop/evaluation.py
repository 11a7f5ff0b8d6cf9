"""Evaluations of a run: metrics, and predictions for every example."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import pandas as pd
import torch
from torch import Tensor

from xlora_bench.data import metrics
from xlora_bench.data.checks import are_hidden
from xlora_bench.data.task import TextTask

Split = tuple[Tensor, Tensor, Tensor]
"""`idx (n,)`, `logits (n, K)` and `labels (n,)` of one split, sorted by idx."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Metrics and predictions after `epoch` epochs."""

    epoch: int
    metrics: dict[str, float]
    splits: dict[str, Split]

    @classmethod
    def of(
        cls, task: TextTask, *, epoch: int, splits: dict[str, Split], loss: Callable[[Tensor, Tensor], Tensor]
    ) -> Self:
        """Score the predictions; `loss(logits, labels)` is the task loss without penalties, on the first split.

        A split with hidden labels has no metrics but `collapsed`.
        """
        scores = {
            name: metrics.compute(task, logits.numpy(), labels.numpy()) for name, (_, logits, labels) in splits.items()
        }
        _, logits, labels = splits[task.eval_splits[0]]
        known = {} if are_hidden(labels.numpy()) else {"loss": loss(logits, labels).item()}
        return cls(epoch=epoch, metrics=metrics.merge(task, scores) | known, splits=splits)

    def summary(self) -> dict[str, float]:
        """Return epoch and metrics in one dict, an entry of the record's history."""
        return {"epoch": self.epoch, **self.metrics}

    def as_tensors(self) -> dict[str, Any]:
        """Return plain containers and tensors, which `torch.load(weights_only=True)` accepts."""
        return {"epoch": self.epoch, "metrics": dict(self.metrics), "splits": dict(self.splits)}

    @classmethod
    def from_tensors(cls, saved: Mapping[str, Any]) -> Self:
        """Invert `as_tensors`."""
        return cls(epoch=saved["epoch"], metrics=dict(saved["metrics"]), splits=dict(saved["splits"]))


def best_of(evaluations: Sequence[Evaluation], headline: str) -> Evaluation:
    """Return the evaluation with the highest headline metric; the earliest one wins a tie."""
    return max(evaluations, key=lambda evaluation: (evaluation.metrics[headline], -evaluation.epoch))


def predictions(evaluations: Sequence[Evaluation]) -> pd.DataFrame:
    """Return one row per (epoch, split, example): idx, label, prediction and the logits `logit_0, logit_1, ...`."""
    parts = []
    for evaluation in evaluations:
        for split, (idx, logits, labels) in evaluation.splits.items():
            predicted = logits.squeeze(-1) if logits.shape[-1] == 1 else logits.argmax(-1)
            columns = {f"logit_{k}": logits[:, k].numpy() for k in range(logits.shape[-1])}
            fixed = {"epoch": evaluation.epoch, "split": split}
            parts.append(
                pd.DataFrame(
                    {
                        **fixed,
                        "idx": idx.numpy(),
                        "label": labels.numpy(),
                        "prediction": predicted.numpy(),
                        **columns,
                    }
                )
            )
    return pd.concat(parts, ignore_index=True)


def collapse_reason(evaluations: Sequence[Evaluation]) -> str | None:
    """Return why the last evaluation counts as collapsed, or None."""
    if not evaluations or not evaluations[-1].metrics["collapsed"]:
        return None
    logits = torch.cat([logits for _, logits, _ in evaluations[-1].splits.values()])
    what = "constant predictions" if torch.isfinite(logits).all() else "logits that are not finite"
    return f"{what} in epoch {evaluations[-1].epoch}"
