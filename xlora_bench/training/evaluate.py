"""Score a model on the eval splits of a task, as a run does after an epoch."""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import lightning
from torch import nn
from transformers import PreTrainedTokenizerBase

from xlora_bench.data.datamodule import TextData
from xlora_bench.data.sources import read_rows
from xlora_bench.data.task import TextTask
from xlora_bench.data.tokenize import TokenizedSplit, tokenized
from xlora_bench.models.packed import choose_layout
from xlora_bench.training.loop.evaluation import Evaluation
from xlora_bench.training.loop.scorer import Scorer
from xlora_bench.training.prepare import placed, trainer_of

QUIET: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}


def evaluate(
    model: nn.Module,
    *,
    task: TextTask,
    tokenizer: PreTrainedTokenizerBase,
    trainer: Mapping[str, Any],
    data_dir: Path | None,
) -> Evaluation:
    """Return metrics and predictions of `model` on `task.eval_splits`; `trainer` is the config of Lightning's trainer.

    A split whose labels are hidden gets predictions and no metrics. With the batch sizes, layout and precision of a run
    the numbers are those of the run. No training rows are read, and nothing is written.
    """
    with TemporaryDirectory() as folder:
        splits = eval_splits(task, tokenizer=tokenizer, data_dir=data_dir, cache_dir=Path(folder))
        loop = trainer_of(trainer, **QUIET)
        data, scorer = batches(model, splits, task=task, tokenizer=tokenizer, trainer=loop), Scorer(model, task=task)
        loop.validate(scorer, data, verbose=False)
    return scorer.evaluations[-1]


def eval_splits(
    task: TextTask, *, tokenizer: PreTrainedTokenizerBase, data_dir: Path | None, cache_dir: Path
) -> dict[str, TokenizedSplit]:
    """Return the tokens of the eval splits."""
    return {
        split: tokenized(
            read_rows(task, split, data_dir=data_dir, may_lack_labels=True),
            tokenizer=tokenizer,
            max_length=task.max_length,
            cache_dir=cache_dir,
        )
        for split in task.eval_splits
    }


def batches(
    model: nn.Module,
    splits: dict[str, TokenizedSplit],
    *,
    task: TextTask,
    tokenizer: PreTrainedTokenizerBase,
    trainer: lightning.Trainer,
) -> TextData:
    """Return the batches of `splits`, in the layout that `choose_layout` checks to be exact for `model`."""
    sample = splits[task.eval_splits[0]]
    collator = choose_layout(
        placed(model, trainer),
        tokenizer=tokenizer,
        examples=[sample[index] for index in range(min(len(sample), 256))],
        layout=task.layout,
        row_lengths=task.row_lengths,
        unpadded=trainer.strategy.root_device.type == "cpu",
        precision=trainer.precision_plugin.forward_context,
    )
    data = TextData(task, tokenizer=tokenizer, seed=0, cache_dir=Path(), eval_collator=collator)
    data.splits = splits
    return data
