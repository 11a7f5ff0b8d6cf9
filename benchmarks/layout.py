"""Time of a training step and of an evaluation, by the layout of the same batches.

    python -m benchmarks.layout --data-dir DIR [--dropout 0.1]

minilm, LoRA with r = 8 on q,v, no dropout unless given, fp32, for every task in DIR (without it: random tokens with the
lengths of SST-2). The reference is what transformers' Trainer with peft computes: padding to the longest of the batch.
A step is forward and backward of 32 sentences. An evaluation is forward of 256 sentences, the longest first, as in our
runs. "Ours, packed" is the layout of runs on a CPU: each batch unpadded, or packed in rows of one length where that is
estimated to be cheaper. `real` is the share of the computed tokens that are not padding. `exact` is `yes` if the
logits of "ours, packed" agree with those of padded batches, else the reason.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import torch
from torch import nn

from benchmarks import models
from benchmarks.batches import available, examples_of, in_batches, packed, padded, padded_to, unpadded
from benchmarks.options import parser, started
from benchmarks.step import Work, training_step
from benchmarks.tables import publish
from benchmarks.timing import Clock, interleaved, ratios
from xlora_bench.data.tokenize import Example
from xlora_bench.models.packed import forward, verify

REFERENCE = "peft, padded to the longest"


def main() -> None:
    """Write `layout.md` and `layout.csv`, or `layout_dropout.md` and `.csv`."""
    arguments = parser(__doc__, rounds=15)
    arguments.add_argument("--tasks", nargs="+", help="(all)")
    arguments.add_argument("--dropout", type=float, default=0.0, help="of the model, in a training step (%(default)s)")
    options = started(arguments)
    base = models.minilm(dropout=options.dropout)
    nets = {"ours": models.ours(base, ["adapter=lora"], targets="q,v"), "peft": models.pefts(base, targets="q,v")}
    frames = [
        rows.assign(task=task)
        for task in options.tasks or available(options.data_dir)
        for rows in measured(nets, examples_of(task, options.data_dir), rounds=options.rounds, clock=options.clock)
    ]
    columns = ["task", "work", "layout", "ms", "ratio", "low", "high", "n", "real", "exact"]
    frame = pd.concat(frames)[columns]
    name, title = ("layout_dropout", f", dropout {options.dropout}") if options.dropout else ("layout", "")
    notes = __doc__.split("\n\n", 2)[2]
    publish(name, frame, title=f"Layout of a batch{title}", notes=notes, folder=options.results)


def measured(
    nets: Mapping[str, nn.Module], examples: list[Example], *, rounds: int, clock: Clock
) -> list[pd.DataFrame]:
    """Return the rows of training and of evaluation on one task."""
    layouts = {
        REFERENCE: ("peft", padded()),
        "peft, packed": ("peft", packed()),
        "ours, padded to the longest": ("ours", padded()),
        "ours, packed": ("ours", unpadded()),
        "ours, packed in rows of one length": ("ours", packed()),
        "ours, packed in rows of 64, 96 or 128": ("ours", packed((64, 96, 128))),
    }
    wide = layouts | {"peft, padded to 128": ("peft", padded_to(128))}
    reason = verify(nets["ours"], examples=examples[:32], padded=padded(), packed=unpadded())
    longest_first = sorted(examples[: 256 * 3], key=lambda example: -len(example["input_ids"]))
    parts = {
        "training step": (wide, in_batches(examples, size=32, count=rounds), training_step),
        "evaluation": (layouts, in_batches(longest_first, size=256, count=3), evaluation),
    }
    frames = []
    for work, (chosen, batches, of) in parts.items():
        steps = {name: of(nets[whose]) for name, (whose, _) in chosen.items()}
        collated = [{name: collate(rows) for name, (_, collate) in chosen.items()} for rows in batches]
        works = {name: taking(name, step) for name, step in steps.items()}
        frame = (
            ratios(interleaved(works, collated, clock=clock), reference=REFERENCE).rename_axis("layout").reset_index()
        )
        frame["real"] = [share_of_real(collated, name) for name in frame["layout"]]
        frames.append(frame.assign(work=work, exact=reason or "yes"))
    return frames


def taking(name: str, step: Work) -> Work:
    """Return `step`, applied to the batch of one layout."""
    return lambda batches: step(batches[name])


def share_of_real(collated: Sequence[dict[str, dict[str, Any]]], name: str) -> float:
    """Return the share of the tokens of a layout that are not padding."""
    real = sum(batch[name]["tokens"] for batch in collated)
    return real / sum(batch[name]["input_ids"].numel() for batch in collated)


def evaluation(model: nn.Module) -> Work:
    """Return the forward pass of `model` without gradients."""

    def evaluate(batch: dict[str, Any]) -> None:
        with torch.inference_mode():
            forward(model.eval(), batch)
        model.train()

    return evaluate


if __name__ == "__main__":
    main()
