"""Prepare a run: from a run request to the adapted model, its batches and its trainer."""

import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from hydra.utils import instantiate
from lightning.pytorch.callbacks import LearningRateMonitor, ProgressBar
from lightning.pytorch.loggers import Logger
from torch import nn

from xlora_bench.adapters.decompositions.disk_cache import disk_cache
from xlora_bench.data.datamodule import TextData
from xlora_bench.data.tokenize import tokenizer_hash
from xlora_bench.inject.head_names import head_parameter_names
from xlora_bench.inject.methods import Method, as_method
from xlora_bench.models import weight_cache
from xlora_bench.models.packed import choose_layout
from xlora_bench.nn.layers.quantized_linear import entries
from xlora_bench.runs import seeds
from xlora_bench.runs.config_hash import canonical, config_hash, relevant
from xlora_bench.runs.run import Run
from xlora_bench.runs.sweep_context import running_sweep, sweep_folder
from xlora_bench.system.lru_cache import collect_garbage
from xlora_bench.system.ranks import ALONE, Ranks
from xlora_bench.training.callbacks import Costs, EpochCheckpoint, EpochStreams, FactorMonitor
from xlora_bench.training.callbacks.gradients import SumGradients
from xlora_bench.training.devices import device_here
from xlora_bench.training.loggers import RunLabels, RunLogs
from xlora_bench.training.loop.module import Classifier
from xlora_bench.training.loop.rank_strategy import RankStrategy
from xlora_bench.training.options import PARTS, checked_part
from xlora_bench.training.resolve import RunRequest
from xlora_bench.training.start_from import load_parent_adapter
from xlora_bench.training.trust import nodes_of


@dataclass(frozen=True, kw_only=True)
class PreparedRun:
    """An adapted model with its data and trainer, ready for training.

    `about` holds entries of the record: hashes, parameter counts and ranks. `checkpoint` is that of the last whole
    epoch of an interrupted run, else None. `close_logger` takes the summary of the outcome. Of several
    `ranks`, only the first one has loggers and writes files.
    """

    run: Run
    classifier: Classifier
    data: TextData
    trainer: lightning.Trainer
    costs: Costs
    checkpoint: Path | None
    close_logger: Callable[[Mapping[str, Any]], None]
    about: Mapping[str, Any]
    init_seconds: float
    ranks: Ranks = ALONE


def prepare(
    request: RunRequest,
    *,
    init_from: Path | None = None,
    checkpoint: Path | None = None,
    callbacks: Sequence[lightning.Callback] = (),
    ranks: Ranks = ALONE,
) -> PreparedRun:
    """Load and adapt the model, choose the layout of its batches, and build the trainer.

    `init_from` is the file of the parent run's trained adapter, which is loaded as the initial one (None: no parent).
    `checkpoint` is that of the last whole epoch of an interrupted run, if there is one.
    `callbacks` are called before all others. `ranks`: this process is one of several that train the run.
    """
    started = time.perf_counter()
    collect_garbage()
    run, parts, method = request.run, request.parts, as_method(request.parts["adapter"])
    model, head, weights = adapted_model(request, method)
    classifier = Classifier(
        model,
        method=method,
        task=parts["task"],
        optimizer=parts["optimizer"],
        schedule=parts["scheduler"],
        head={name for name, parameter in model.named_parameters() if any(parameter is one for one in head)},
        ranks=ranks,
    )
    if init_from is not None:
        load_parent_adapter(model, init_from, head=classifier.head)
    loggers, costs = OpenLoggers.of(run) if ranks.is_first else OpenLoggers([]), Costs(ranks)
    every_n_steps = run.config["monitor"]["every_n_steps"]
    resumed_elsewhere = method.resumable and not run.config["rerun"]
    all_callbacks: list[lightning.Callback] = [
        *callbacks,
        *([SumGradients(ranks)] if ranks.world > 1 else []),
        EpochStreams(run.config["seed"], ranks),
        *([FactorMonitor(run.attempt, every_n_steps=every_n_steps)] if ranks.is_first else []),
        costs,
        *([EpochCheckpoint(run.attempt, ranks, sent=resumed_elsewhere)] if ranks.is_first else []),
        *([LearningRateMonitor(logging_interval="step")] if loggers.opened else []),
        *(instantiate(node) for node in nodes_of("callbacks", run.config.get("callbacks")).values()),
    ]
    logger = [logger for _, logger in loggers.opened] or False
    options = {**run.config["trainer"], **({} if ranks.world == 1 else of_rank(run.config["trainer"], ranks))}
    corpus, trainer = request.corpus, trainer_of(options, logger=logger, callbacks=all_callbacks)
    return PreparedRun(
        run=run,
        classifier=classifier,
        data=batches(request, model, trainer, ranks),
        trainer=trainer,
        costs=costs,
        checkpoint=checkpoint if method.resumable else None,
        close_logger=loggers.close,
        about={
            "hashes": {"data": corpus.fingerprint, "weights": weights, "tokenizer": tokenizer_hash(corpus.tokenizer)},
            "parameters": parameter_counts(model, head, closed_form=method.closed_form(model)),
            "ranks": method.ranks(model),
        },
        init_seconds=time.perf_counter() - started,
        ranks=ranks,
    )


@dataclass(frozen=True)
class OpenLoggers:
    """The loggers of a run, each with its options."""

    opened: Sequence[tuple[RunLogs, Logger]]

    @classmethod
    def of(cls, run: Run) -> "OpenLoggers":
        """Open the loggers of a run."""
        options = checked_part("logger", run.config["logger"])
        return cls([(one, one.open(run.attempt, run_labels(run))) for one in options.values()])

    def close(self, summary: Mapping[str, Any]) -> None:
        """Pass the summary of the outcome to every logger, and close it."""
        for options, logger in self.opened:
            options.close(logger, summary)


def of_rank(options: Mapping[str, Any], ranks: Ranks) -> dict[str, Any]:
    """Return the options of the trainer by which a rank differs; only the first one shows anything."""
    with_gpus = device_here(options.get("accelerator", "auto")) == "cuda"
    device = torch.device("cuda", ranks.rank) if with_gpus else torch.device("cpu")
    hidden = dict.fromkeys(("enable_progress_bar", "enable_model_summary"), False) | {"profiler": None}
    return {
        "accelerator": device.type,
        "devices": [ranks.rank] if with_gpus else 1,
        "strategy": RankStrategy(device, ranks),
        **({} if ranks.is_first else hidden),
    }


def trainer_of(
    options: Mapping[str, Any], *, callbacks: Sequence[lightning.Callback] = (), **more: Any
) -> lightning.Trainer:
    """Return the trainer with our `callbacks`, then those of `trainer.callbacks`; switch TF32 on or off.

    `enable_progress_bar=None` draws a bar if one of the callbacks is one, or for a single run on a terminal.
    """
    use_tf32(bool(options.get("tf32")))
    every = [*callbacks, *(instantiate(node) for node in nodes_of("callbacks", options.get("callbacks")).values())]
    bar = more.pop("enable_progress_bar", options.get("enable_progress_bar"))
    if bar is False:
        every = [one for one in every if not isinstance(one, ProgressBar)]
    elif bar is None:
        alone = running_sweep() is None and sys.stdout.isatty()
        bar = alone or any(isinstance(one, ProgressBar) for one in every)
    rest = {key: value for key, value in options.items() if key not in ("callbacks", "tf32")}
    return instantiate(rest, callbacks=every, enable_progress_bar=bar, **more)


def use_tf32(on: bool) -> None:
    """Let products of fp32 matrices and convolutions round their inputs to TensorFloat-32 on a GPU, or not.

    torch's own default differs: on for convolutions, off for matrices.
    """
    torch.backends.cuda.matmul.allow_tf32 = on
    torch.backends.cudnn.allow_tf32 = on


def adapted_model(request: RunRequest, method: Method) -> tuple[nn.Module, list[nn.Parameter], str]:
    """Return the adapted model in training mode, the parameters of its head, and the hash of its base weights."""
    parts, corpus, seed = request.parts, request.corpus, request.run.config["seed"]
    task = parts["task"]
    model, weights = weight_cache.classifier(
        parts["model"], request.caches.checkpoints, num_labels=task.num_labels, seed=seeds.derive(seed, "head")
    )
    in_head = head_parameter_names(model)
    head = [parameter for name, parameter in model.named_parameters() if name in in_head]
    with disk_cache(corpus.cache_dir / "decompositions"):
        adapted = method.apply(
            model,
            targets=parts["targets"],
            init_scheme=parts["init_scheme"],
            seed=seeds.derive(seed, "adapter"),
            total_steps=total_steps(request.run.config, rows=len(corpus.splits[task.training_split])),
        )
    for parameter in head:
        parameter.requires_grad_(True)
    weight_cache.own_what_trains(adapted)
    adapted.train()  # transformers loads in evaluation mode, Lightning keeps it: no dropout
    return adapted, head, weights


def batches(request: RunRequest, model: nn.Module, trainer: lightning.Trainer, ranks: Ranks) -> TextData:
    """Return the batches of the run, in the layout that `choose_layout` checks to be exact for `model`.

    For the check `model` is moved and cast to where and how it will train.
    """
    corpus, config, task = request.corpus, request.run.config, request.parts["task"]
    split = corpus.splits[task.training_split]
    collator = choose_layout(
        placed(model, trainer),
        tokenizer=corpus.tokenizer,
        examples=[split[index] for index in range(min(len(split), 256))],
        layout=task.layout,
        row_lengths=task.row_lengths,
        unpadded=trainer.strategy.root_device.type == "cpu",
        checks=request.caches.packing_checks,
        precision=trainer.precision_plugin.forward_context,
    )
    return TextData(
        task,
        tokenizer=corpus.tokenizer,
        seed=config["seed"],
        cache_dir=corpus.cache_dir,
        data_dir=corpus.data_dir,
        corpus=corpus,
        train_collator=collator,
        eval_collator=collator,
        num_workers=task.num_workers,
        ranks=ranks,
    )


def placed(model: nn.Module, trainer: lightning.Trainer) -> nn.Module:
    """Return `model`, moved to the device and cast to the dtype in which `trainer` runs it, as it would do itself."""
    return trainer.precision_plugin.convert_module(model).to(trainer.strategy.root_device)


def total_steps(config: dict[str, Any], *, rows: int) -> int:
    """Return the number of optimizer steps of the whole run."""
    batches = math.ceil(rows / config["task"]["batch_size"])
    return math.ceil(batches / config["trainer"]["accumulate_grad_batches"]) * config["trainer"]["max_epochs"]


def parameter_counts(model: nn.Module, head: list[nn.Parameter], *, closed_form: int | None) -> dict[str, int | None]:
    """Count trained entries outside and inside the head, and all entries; assert that `closed_form` agrees."""
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    in_head = sum(parameter.numel() for parameter in head)
    adapter = trainable - in_head
    assert closed_form is None or closed_form == adapter, f"{adapter} adapter parameters, {closed_form} by formula"
    return {
        "adapter": adapter,
        "adapter_closed_form": closed_form,
        "head": in_head,
        "trainable": trainable,
        "total": entries(model),
    }


def run_labels(run: Run) -> RunLabels:
    """Return the labels of a run for its loggers."""
    shown = [run.choices[group] for group in ("model", "task", "adapter", "init_scheme")]
    rank = run.config["adapter"].get("rank")
    name = "-".join([*shown, *([f"r{rank}"] if rank is not None else [])])
    options = without_class_names({key: node for key, node in relevant(run.config).items() if key != "seed"})
    return RunLabels(
        run_id=run.id,
        group=running_sweep() or "single",
        config_label=f"{name}-{config_hash({**run.config, 'seed': None}, data='')[:8]}",
        name=f"{name}-s{run.config['seed']}",
        tags=tuple(shown),
        names={
            **{group: run.choices[group] for group in PARTS if group in run.choices},
            "rank": rank,
            "seed": run.config["seed"],
        },
        options=canonical(options),
        headline=run.config.get("task", {}).get("headline"),
        results_dir=run.folder.parent.parent.absolute(),
        sweep_folder=sweep_folder(),
    )


def without_class_names(node: Any) -> Any:
    """Return a part of a config without the keys of Hydra, which begin with `_`, at any depth."""
    if isinstance(node, dict):
        return {key: without_class_names(value) for key, value in node.items() if not str(key).startswith("_")}
    return [without_class_names(value) for value in node] if isinstance(node, list) else node
