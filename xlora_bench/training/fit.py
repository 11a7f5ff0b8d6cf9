"""Train a prepared run and evaluate it."""

from collections.abc import Mapping
from statistics import fmean
from typing import Any

from xlora_bench.system.io import replacing
from xlora_bench.training.loop.evaluation import Evaluation, best_of, collapse_reason, predictions
from xlora_bench.training.loop.module import Classifier
from xlora_bench.training.loop.trained_state import save_trained
from xlora_bench.training.prepare import PreparedRun


def fit(prepared: PreparedRun) -> dict[str, Any]:
    """Train, from the checkpoint if there is one; write adapter and predictions; return the entries of the record.

    Of several ranks, only the first one writes and returns something.
    """
    classifier, folder = prepared.classifier, prepared.run.attempt
    prepared.trainer.fit(classifier, prepared.data, ckpt_path=prepared.checkpoint, weights_only=True)
    if not prepared.ranks.is_first:
        return {}
    outcome = outcome_of(classifier)
    save_trained(classifier.model, folder / "adapter.safetensors")
    if classifier.evaluations:
        with replacing(folder / "predictions.parquet") as temporary:
            predictions(classifier.evaluations).to_parquet(temporary, index=False)
    cost = {"init_seconds": prepared.init_seconds, **prepared.costs.summary()}
    entries = {**outcome, **prepared.about, "cost": cost}
    prepared.close_logger(summary_of(entries))
    return entries


def outcome_of(classifier: Classifier) -> dict[str, Any]:
    """Return status, reason and metrics; `collapsed` for a non-finite loss or logit, or constant predictions."""
    reason = classifier.collapse or collapse_reason(classifier.evaluations)
    return {
        "status": "collapsed" if reason else "completed",
        "reason": reason,
        "metrics": metrics_of(classifier.evaluations, classifier.task.headline),
    }


def metrics_of(evaluations: list[Evaluation], headline: str) -> dict[str, Any]:
    """Return `metrics` of the record: headline, history, and the entries of the best and the last epoch."""
    if not evaluations:
        return {"headline": headline, "history": []}
    return {
        "headline": headline,
        "history": [evaluation.summary() for evaluation in evaluations],
        "best": best_of(evaluations, headline).summary(),
        "last": evaluations[-1].summary(),
    }


def summary_of(entries: Mapping[str, Any]) -> dict[str, Any]:
    """Return the flat summary for the logger from the entries of the record.

    Status, score (the headline metric at its best epoch), best and last metrics, parameters, costs in seconds and
    bytes, and the smallest, mean and largest rank of a weight; without what is not known.
    """
    metrics, ranks = entries["metrics"], list(entries["ranks"].values())
    parts = {"best": metrics.get("best", {}), "last": metrics.get("last", {})}
    parts |= {name: entries[name] for name in ("parameters", "cost")}
    if ranks:
        parts["rank"] = {"min": min(ranks), "mean": fmean(ranks), "max": max(ranks)}
    flat = {f"{part}/{key}": value for part, values in parts.items() for key, value in values.items()}
    score = parts["best"].get(metrics["headline"])
    summary = {"status": entries["status"], "score": score, **flat}
    return {key: value for key, value in summary.items() if value is not None}
