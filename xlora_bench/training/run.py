"""Train one cell from its parts and say what came out; `train.py` decides whether that is needed."""

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from hydra.utils import instantiate
from torch import nn

from xlora_bench.adapters.decompositions.disk_cache import remembered_in
from xlora_bench.data.datamodule import TextData
from xlora_bench.data.tokenize import tokenizer_hash
from xlora_bench.inject.head_names import head_parameter_names
from xlora_bench.inject.methods import as_method
from xlora_bench.models import weight_cache
from xlora_bench.models.packed import choose_layout
from xlora_bench.runs import seeds
from xlora_bench.runs.config_hash import identity
from xlora_bench.runs.run import Cell
from xlora_bench.runs.sweep_context import running_sweep
from xlora_bench.system.lru_cache import clear_garbage
from xlora_bench.training.callbacks import Costs, EpochCheckpoint, EpochStreams, FactorMonitor
from xlora_bench.training.loggers import RunIdentity, flatten
from xlora_bench.training.loop.evaluation import Evaluation, best_of, collapse_reason, predictions
from xlora_bench.training.loop.module import Classifier
from xlora_bench.training.loop.trained_state import save_trained
from xlora_bench.training.start_from import load_start


@dataclass(frozen=True, kw_only=True)
class Built:
    """An adapted model ready for training, with what the record says about it."""

    classifier: Classifier
    about: dict[str, Any]


def run(cell: Cell, parts: dict[str, Any], data: TextData, *, start: Path | None = None) -> dict[str, Any]:
    """Build, train (from the last checkpoint, if there is one) and evaluate; return the record's entries.

    `start` holds the trained adapter of another cell, which then is the start of this one.
    """
    started = time.perf_counter()
    clear_garbage()
    built = build(cell, parts, data)
    classifier, costs = built.classifier, Costs()
    if start is not None:
        load_start(classifier.model, start, head=classifier.head)
    logger_options = instantiate(cell.config["logger"])
    logger = logger_options.open(cell.folder, identity_of(cell))
    trainer: lightning.Trainer = instantiate(
        cell.config["trainer"],
        logger=logger,
        callbacks=[
            EpochStreams(cell.config["seed"]),
            FactorMonitor(cell.folder, every_n_steps=cell.config["monitor"]["every_n_steps"]),
            costs,
            EpochCheckpoint(cell.folder),
        ],
    )
    init_seconds = time.perf_counter() - started
    checkpoint = cell.resume_from() if as_method(parts["adapter"]).resumable else None
    trainer.fit(classifier, data, ckpt_path=checkpoint, weights_only=True)
    outcome = outcome_of(classifier)
    save_trained(classifier.model, cell.folder / "adapter.safetensors")
    if classifier.evaluations:
        predictions(classifier.evaluations).to_parquet(cell.folder / "predictions.parquet", index=False)
    logger_options.close(logger, summary_of(outcome))
    return outcome | built.about | {"cost": {"init_seconds": init_seconds, **costs.summary()}}


def build(cell: Cell, parts: dict[str, Any], data: TextData) -> Built:
    """Load the model, adapt it, and choose the layout of its batches."""
    task, seed, method = parts["task"], cell.config["seed"], as_method(parts["adapter"])
    data.setup()
    model, weights = weight_cache.classifier(
        parts["model"], num_labels=task.num_labels, seed=seeds.derive(seed, "head")
    )
    in_head = head_parameter_names(model)
    head = [parameter for name, parameter in model.named_parameters() if name in in_head]
    with remembered_in(data.cache_dir / "decompositions"):
        adapted = method.apply(
            model,
            targets=parts["targets"],
            init_scheme=parts["init_scheme"],
            seed=seeds.derive(seed, "adapter"),
            total_steps=total_steps(cell.config, rows=len(data.splits[task.train_split])),
        )
    for parameter in head:
        parameter.requires_grad_(True)
    weight_cache.own_what_trains(adapted)
    adapted.train()  # transformers loads in evaluation mode, and Lightning leaves it so: dropout would stay off
    split = data.splits[task.train_split]
    examples = [split[place] for place in range(min(len(split), 256))]
    collator = choose_layout(
        adapted,
        tokenizer=data.tokenizer,
        examples=examples,
        layout=task.layout,
        row_lengths=task.packed_rows,
        flat=trains_on_cpu(cell.config["trainer"]["accelerator"]),
    )
    data.train_collator = data.eval_collator = collator
    classifier = Classifier(
        adapted,
        method=method,
        task=task,
        optimizer=parts["optimizer"],
        schedule=parts["scheduler"],
        head={name for name, parameter in adapted.named_parameters() if any(parameter is one for one in head)},
    )
    hashes = {"data": data.fingerprint, "weights": weights, "tokenizer": tokenizer_hash(data.tokenizer)}
    counts = parameter_counts(adapted, head, closed_form=method.closed_form(adapted))
    return Built(
        classifier=classifier,
        about={"hashes": hashes, "parameters": counts, "ranks": method.ranks(adapted)},
    )


def trains_on_cpu(accelerator: str) -> bool:
    """Return whether Lightning's `accelerator` is the processor here."""
    return accelerator == "cpu" or (accelerator == "auto" and not torch.accelerator.is_available())


def total_steps(config: dict[str, Any], *, rows: int) -> int:
    """Return the number of optimizer steps of the whole run."""
    batches = math.ceil(rows / config["task"]["batch_size"])
    return math.ceil(batches / config["trainer"]["accumulate_grad_batches"]) * config["trainer"]["max_epochs"]


def parameter_counts(model: nn.Module, head: list[nn.Parameter], *, closed_form: int | None) -> dict[str, int | None]:
    """Count the trained entries outside and inside the head, and all of the model's; the formula must agree."""
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    in_head = sum(parameter.numel() for parameter in head)
    adapter = trainable - in_head
    assert closed_form is None or closed_form == adapter, f"{adapter} adapter parameters, {closed_form} by formula"
    return {
        "adapter": adapter,
        "adapter_closed_form": closed_form,
        "head": in_head,
        "trainable": trainable,
        "total": sum(parameter.numel() for parameter in model.parameters()),
    }


def outcome_of(classifier: Classifier) -> dict[str, Any]:
    """Return status, reason and metrics: `collapsed` if the loss left the numbers or the predictions are constant."""
    reason = classifier.collapse or collapse_reason(classifier.evaluations)
    return {
        "status": "collapsed" if reason else "done",
        "reason": reason,
        "metrics": metrics_of(classifier.evaluations, classifier.task.headline),
    }


def metrics_of(evaluations: list[Evaluation], headline: str) -> dict[str, Any]:
    """Return the record's metrics: the whole history, its best and its last entry."""
    if not evaluations:
        return {"headline": headline, "history": []}
    return {
        "headline": headline,
        "history": [evaluation.summary() for evaluation in evaluations],
        "best": best_of(evaluations, headline).summary(),
        "last": evaluations[-1].summary(),
    }


def summary_of(outcome: dict[str, Any]) -> dict[str, Any]:
    """Return the flat summary that trackers show: status, best and last metrics."""
    metrics = outcome["metrics"]
    scores = {f"{when}/{key}": value for when in ("best", "last") for key, value in metrics.get(when, {}).items()}
    return {"status": outcome["status"], **scores}


def identity_of(cell: Cell) -> RunIdentity:
    """Return how trackers name the cell's run."""
    shown = [cell.choices[group] for group in ("model", "task", "adapter", "init_scheme")]
    rank = cell.config["adapter"].get("rank")
    name = "-".join([*shown, *([f"r{rank}"] if rank is not None else [])])
    return RunIdentity(
        cell=cell.id,
        group=running_sweep() or "single",
        place=f"{name}-{identity({**cell.config, 'seed': None}, data='')[:8]}",
        name=f"{name}-s{cell.config['seed']}",
        tags=tuple(shown),
        config=flatten(cell.config),
    )
