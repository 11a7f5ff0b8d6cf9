"""What a run costs before it runs: steps, tokens and seconds; the runs of a sweep in the order of their costs."""

import logging
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

from hydra.core.config_loader import ConfigLoader
from omegaconf import DictConfig, OmegaConf

from xlora_bench.sweeps.estimate.sizes import Encoder, Rows, encoder_of, rows_of

log = logging.getLogger(__name__)

DECISIVE = ("task", "model", "trainer", "adapter", "paths")
"""Keys that change how long a run takes; of `adapter` only which it is."""
EFFICIENCY = 0.5
"""Share of a plain matrix product's speed that a training step reaches: attention, norms and optimizer are the rest."""
FIXED_SECONDS = 2.0
"""Of a run in a process that has run one before, before its first step and after its last."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Optimizer steps, training tokens (padding not counted) and seconds of one run; None: no estimate."""

    steps: int | None
    tokens: int | None
    seconds: float | None


def cost_of(config: Mapping[str, Any], rows: Rows | None, encoder: Encoder | None, *, measured: float | None) -> Cost:
    """Return the cost of a run on `rows`; `measured` are the training tokens per second of earlier runs, if any.

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


def training_flops(config: DictConfig) -> float:
    """Return the floating-point operations of training the run of `config`.

    Raises:
        ValueError: if there is no size for its task or model.
    """
    plain = {name: cast("dict[str, Any]", OmegaConf.to_container(config[name], resolve=True)) for name in DECISIVE}
    rows, encoder = rows_of(plain), encoder_of(plain["model"])
    if rows is None or encoder is None:
        raise ValueError("there is no size for the task or the model")
    tokens = cost_of(plain, rows, encoder, measured=1.0).tokens or 0
    return passes_of(plain) * tokens * encoder.flops_per_token(rows.tokens)


def longest_first(jobs: Sequence[Sequence[str]], *, config: DictConfig, loader: ConfigLoader) -> list[int]:
    """Return the indices of `jobs` in the order in which to start them: by falling cost, equal ones as given.

    A long job that starts last keeps one worker busy while the others wait. Where one has no estimate, or all are the
    same, the order is the given one.
    """
    kinds = [tuple(override for override in overrides if _decides(override)) for overrides in jobs]
    given = list(range(len(jobs)))
    if len(set(kinds)) < 2:
        return given
    try:
        flops = {kind: training_flops(loader.load_sweep_config(config, list(kind))) for kind in dict.fromkeys(kinds)}
    except Exception as error:  # the job itself says it better
        log.debug("the jobs have no estimate: %s", error)
        return given
    return sorted(given, key=lambda index: -flops[kinds[index]])


def _decides(override: str) -> bool:
    key = override.partition("=")[0]
    return key.partition(".")[0].partition("@")[0] in DECISIVE and not key.startswith("adapter.")
