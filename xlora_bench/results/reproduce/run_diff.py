"""Compare the outcomes of two runs bit by bit: metrics, predictions, trained tensors."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from xlora_bench.results.reproduce.run_artifacts import RunArtifacts

if TYPE_CHECKING:
    from torch import Tensor

KEYS = ["epoch", "split", "idx"]


@dataclass(frozen=True, kw_only=True)
class RunDiff:
    """Differences between the outcomes of two runs; `compared` names what both have.

    `history_from` is the first epoch whose metrics differ, `largest` has the absolute difference per metric there.
    `rows` counts the common predictions (epoch, split, example), 0 if the examples differ. `predicted` of them differ,
    first in epoch `predictions_from`; `logits` is the largest absolute difference of a logit. `tensors` is the largest
    absolute difference of a trained entry (inf: other names or shapes). None: unknown or no difference.
    """

    statuses: tuple[str, str]
    compared: tuple[str, ...]
    identical: bool
    history_from: int | None
    largest: Mapping[str, float]
    rows: int | None
    predicted: int | None
    predictions_from: int | None
    logits: float | None
    tensors: float | None

    @property
    def difference(self) -> float:
        """The largest difference of metrics, logits and tensors; 0 if identical, NaN if unknown."""
        known = [*self.largest.values(), *(value for value in (self.logits, self.tensors) if value is not None)]
        return 0.0 if self.identical else max((value for value in known if not math.isnan(value)), default=math.nan)

    def lines(self) -> list[str]:
        """Return the differences as sentences."""
        if self.identical:
            return [f"identical to the bit: {', '.join(self.compared)}"]
        sentences = [] if len(set(self.statuses)) == 1 else [f"status: {self.statuses[0]} and {self.statuses[1]}"]
        if self.history_from is None:
            sentences.append("metrics: identical in every epoch")
        else:
            parts = ", ".join(f"{name} by {value:.3g}" for name, value in self.largest.items() if value)
            sentences.append(f"metrics part at epoch {self.history_from}" + (f": {parts}" if parts else ""))
        return sentences + self._about_files()

    def _about_files(self) -> list[str]:
        sentences = []
        if self.rows == 0:
            sentences.append("predictions: not of the same examples")
        elif self.rows is not None:
            first = "" if self.predictions_from is None else f", the first at epoch {self.predictions_from}"
            sentences.append(
                f"predictions: {self.predicted:,} of {self.rows:,} differ{first}; logits by {self.logits:.3g}"
            )
        if self.tensors is not None:
            text = "of other shapes" if math.isinf(self.tensors) else f"differ by at most {self.tensors:.3g}"
            sentences.append("trained tensors: " + (text if self.tensors else "identical"))
        return sentences


def run_diff(left: RunArtifacts, right: RunArtifacts) -> RunDiff:
    """Compare the outcomes of two runs."""
    histories = [run.record.metrics.get("history", []) for run in (left, right)]
    history_from, largest = first_difference(*histories)
    statuses = (left.record.status, right.record.status)
    common = [what for what in ("predictions", "tensors") if what in left.digests and what in right.digests]
    same = [left.digests[what] == right.digests[what] for what in common]
    predictions = compare_predictions(left.predictions, right.predictions)
    return RunDiff(
        statuses=statuses,
        compared=("status", "metrics of every epoch", *({"tensors": "trained tensors"}.get(x, x) for x in common)),
        identical=statuses[0] == statuses[1] and history_from is None and all(same),
        history_from=history_from,
        largest=largest,
        tensors=tensor_difference(left.tensors, right.tensors),
        **predictions,
    )


def first_difference(
    left: Sequence[Mapping[str, Any]], right: Sequence[Mapping[str, Any]]
) -> tuple[int | None, dict[str, float]]:
    """Return the first epoch with different metrics (None if all are equal), and the absolute differences there."""
    for one, other in zip(left, right, strict=False):
        differences = {name: difference(one.get(name), other.get(name)) for name in one.keys() | other.keys()}
        if any(differences.values()):
            return int(one.get("epoch", 0)), {name: differences[name] for name in sorted(differences)}
    if len(left) != len(right):
        return min(len(left), len(right)) + 1, {}
    return None, {}


def difference(one: Any, other: Any) -> float:
    """Return `|one - other|`; 0 for two NaNs or equal values, inf if a value is missing, not a number or not finite."""
    if one == other or (pd.isna(one) and pd.isna(other)):
        return 0.0
    if any(not isinstance(value, int | float) or not math.isfinite(value) for value in (one, other)):
        return math.inf
    return abs(float(one) - float(other))


def compare_predictions(left: pd.DataFrame | None, right: pd.DataFrame | None) -> dict[str, Any]:
    """Return the entries of `RunDiff` on predictions: `rows`, `predicted`, `predictions_from`, `logits`."""
    if left is None or right is None:
        return dict.fromkeys(("rows", "predicted", "predictions_from", "logits"))
    nothing = {"rows": 0, "predicted": None, "predictions_from": None, "logits": None}
    logits = [name for name in left.columns if name.startswith("logit_")]
    if set(left.columns) != set(right.columns):
        return nothing
    both = left.merge(right, on=KEYS, suffixes=("", "'"))
    if both.empty or not (both["label"] == both["label'"]).all():
        return nothing
    differs = both["prediction"] != both["prediction'"]
    pairs = [(both[name].to_numpy(np.float64), both[f"{name}'"].to_numpy(np.float64)) for name in logits]
    gaps = [np.abs(one - other)[~(np.isnan(one) & np.isnan(other)) & (one != other)] for one, other in pairs]
    return {
        "rows": len(both),
        "predicted": int(differs.sum()),
        "predictions_from": int(both.loc[differs, "epoch"].min()) if differs.any() else None,
        "logits": max((float(np.nan_to_num(gap, nan=np.inf).max()) for gap in gaps if len(gap)), default=0.0),
    }


def tensor_difference(left: "Mapping[str, Tensor] | None", right: "Mapping[str, Tensor] | None") -> float | None:
    """Return the largest absolute difference of an entry; inf if names or shapes differ, None if one is missing."""
    if left is None or right is None:
        return None
    if {name: tensor.shape for name, tensor in left.items()} != {name: tensor.shape for name, tensor in right.items()}:
        return math.inf
    return max((tensor_gap(left[name], right[name]) for name in left), default=0.0)


def tensor_gap(one: "Tensor", other: "Tensor") -> float:
    """Return `max |one - other|` of two tensors of one shape; NaN equals NaN."""
    apart = (one != other) & ~(one.isnan() & other.isnan())
    gaps = (one.double() - other.double()).abs()[apart].nan_to_num(math.inf)
    return float(gaps.max()) if gaps.numel() else 0.0
