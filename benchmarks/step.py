"""Time of a training step of each variant, of peft's LoRA and of loralib's LoRA, relative to the floor.

    python -m benchmarks.step --data-dir DIR

minilm, batches of 32 sentences of SST-2 in the same packed layout, r = 8 unless given, no dropout, fp32. A step is
forward and backward with the penalty, without the optimizer. The head trains in all of them. The floor is the same
model without an adapter: only gradients of activations are computed, back to the first layer's targets.
"""

from collections.abc import Callable
from typing import Any

import pandas as pd
from torch import nn
from torch.nn.functional import cross_entropy

from benchmarks import models
from benchmarks.batches import available, examples_of, in_batches, packed
from benchmarks.options import parser, started
from benchmarks.tables import publish
from benchmarks.timing import interleaved, ratios
from xlora_bench import inject
from xlora_bench.models.packed import forward

VARIANTS = {
    "lora": ["adapter=lora"],
    "pissa": ["adapter=pissa"],
    "olora": ["adapter=olora"],
    "milora": ["adapter=milora"],
    "lora, ldu init": ["adapter=lora", "init_scheme=ldu"],
    "lora_plus": ["adapter=lora_plus"],
    "lora_fa": ["adapter=lora_fa"],
    "asymmetric": ["adapter=asymmetric"],
    "orthogonal": ["adapter=orthogonal"],
    "orthogonal_qr": ["adapter=orthogonal_qr"],
    "lu": ["adapter=lu"],
    "cholesky": ["adapter=cholesky"],
    "lora_xs": ["adapter=lora_xs"],
    "dora": ["adapter=dora"],
    "vera": ["adapter=vera", "adapter.rank=8"],
    "vera, r = 256": ["adapter=vera"],
    "loldu, r = 8": ["adapter=loldu"],
    "loldu, r = 64": ["adapter=loldu", "adapter.rank=64"],
    "loldu, full rank": ["adapter=loldu", "adapter.rank=384"],
}
SQUARE = ("cholesky",)
"""Variants for square weights only, so not for all linear layers."""
Work = Callable[[dict[str, Any]], None]


def main() -> None:
    """Write `step.md` and `step.csv`."""
    arguments = parser(__doc__, rounds=20)
    arguments.add_argument("--batch", type=int, default=32, help="(%(default)s)")
    arguments.add_argument("--only", nargs="+", default=[], help="contenders to measure besides the floor (all)")
    options = started(arguments)
    examples = examples_of("sst2" if options.data_dir else available(None)[0], options.data_dir)
    collate = packed()
    batches = [collate(rows) for rows in in_batches(examples, size=options.batch, count=options.rounds)]
    frames = []
    for targets in models.TARGETS:
        steps = contenders(targets)
        steps = {name: step for name, step in steps.items() if not options.only or name in ("floor", *options.only)}
        seconds = interleaved(steps, batches, warm=2, clock=options.clock)
        frames.append(ratios(seconds, reference="floor").rename_axis("step").reset_index().assign(targets=targets))
    frame = pd.concat(frames)[["targets", "step", "ms", "ratio", "low", "high", "n"]]
    publish("step", frame, title="Step over the floor", notes=__doc__.split("\n\n", 2)[2], folder=options.results)


def contenders(targets: str) -> dict[str, Work]:
    """Return the steps to compare; the floor is there twice, which shows the noise of the measurement."""
    base, dropping = models.minilm(), models.minilm(dropout=0.1)
    chosen = {name: choice for name, choice in VARIANTS.items() if targets == "q,v" or name not in SQUARE}
    nets = {
        "floor": models.floor(base, targets=targets),
        "floor again": models.floor(base, targets=targets),
        "peft lora": models.pefts(base, targets=targets),
        "loralib lora": models.loralibs(base, targets=targets),
        **{f"ours: {name}": models.ours(base, choice, targets=targets) for name, choice in chosen.items()},
        "ours: lora, dropout .1": models.ours(dropping, ["adapter=lora", "adapter.dropout=0.1"], targets=targets),
        "peft lora, dropout .1": models.pefts(dropping, targets=targets, dropout=0.1),
    }
    for net in nets.values():
        models.train_head(net)
    return {name: training_step(net) for name, net in nets.items()}


def training_step(model: nn.Module) -> Work:
    """Return forward and backward of `model`; the gradients are discarded."""

    def step(batch: dict[str, Any]) -> None:
        loss = cross_entropy(forward(model, batch), batch["labels"])
        penalty = inject.penalty(model)
        (loss if penalty is None else loss + penalty).backward()
        model.zero_grad()

    return step


if __name__ == "__main__":
    main()
