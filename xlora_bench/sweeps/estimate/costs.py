"""What a cell costs before it runs: steps, tokens and seconds, from sizes and one short measurement."""

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from xlora_bench.sweeps.estimate.sizes import Encoder, Rows

EFFICIENCY = 0.5
"""Share of a plain matrix product's speed that a training step reaches: attention, norms and optimizer are the rest."""
FIXED_SECONDS = 2.0
"""Of a cell in a warm process, before its first step and after its last."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Optimizer steps, training tokens (padding not counted) and seconds of one cell; None is not known."""

    steps: int | None
    tokens: int | None
    seconds: float | None


def cost_of(config: Mapping[str, Any], rows: Rows | None, encoder: Encoder | None, *, measured: float | None) -> Cost:
    """Return the cost of a cell on `rows`; `measured` are the training tokens per second of earlier cells, if any.

    `seconds = fixed + (passes n_train + n_eval) epochs tokens flops / (efficiency x speed)`, with two passes for a
    frozen base (forward, gradients of the activations), `flops` those of an encoder's forward pass per token.
    """
    if rows is None:
        return Cost(steps=None, tokens=None, seconds=None)
    epochs = config["trainer"]["max_epochs"]
    batches = -(-rows.train // config["task"]["batch_size"])
    steps = -(-batches // config["trainer"]["accumulate_grad_batches"]) * epochs
    tokens, evaluated = (round(count * rows.tokens * epochs) for count in (rows.train, rows.evaluated))
    passes = passes_of(config)
    if measured is not None:
        return Cost(steps=steps, tokens=tokens, seconds=FIXED_SECONDS + (tokens + evaluated / passes) / measured)
    if encoder is None:
        return Cost(steps=steps, tokens=tokens, seconds=None)
    flops = (passes * tokens + evaluated) * encoder.flops_per_token(rows.tokens)
    return Cost(steps=steps, tokens=tokens, seconds=FIXED_SECONDS + flops / (EFFICIENCY * flops_per_second()))


def passes_of(config: Mapping[str, Any]) -> float:
    """Return how many forward passes a training step is worth: a frozen weight costs no gradient of its own.

    One if the head alone trains, three if everything does, else two.
    """
    trainable = config["adapter"].get("trainable")  # patterns of a baseline; a variant has none
    if trainable is None:
        return 2.0
    return 3.0 if ".*" in trainable else 2.0 if trainable else 1.0


@cache
def flops_per_second(rounds: int = 7) -> float:
    """Return the fp32 speed of a matrix product of an encoder's shape, the median of some, on torch's threads."""
    import torch  # noqa: PLC0415 - slow to import

    left, right = torch.randn(512, 768), torch.randn(768, 3072)
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        torch.mm(left, right)
        times.append(time.perf_counter() - started)
    return 2 * 512 * 768 * 3072 / statistics.median(times)
