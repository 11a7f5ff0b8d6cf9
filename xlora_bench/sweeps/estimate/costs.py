"""Estimated cost of a run (steps, tokens, seconds), and the order of the jobs of a sweep by cost."""

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
from xlora_bench.training.devices import device_here

log = logging.getLogger(__name__)

DECISIVE = ("task", "model", "trainer", "adapter", "paths")
"""Keys that change the duration of a run; of `adapter`, only the choice counts, not its options."""
EFFICIENCY = {"cpu": 0.5, "cuda": 0.2, "mps": 0.2}
"""Speed of a training step as a share of a plain matrix product's; attention, norms and optimizer are slower.

On a GPU small batches do not fill the device. That value is a guess; that of the CPU was measured.
"""
WITHIN = {"cpu": 2.0, "cuda": 4.0, "mps": 4.0}
"""Factor within which an estimate from operations is right."""
WITHIN_MEASURED = 1.25
"""Factor within which an estimate from the speed of earlier runs is right."""
FIXED_SECONDS = 2.0
"""Overhead before the first and after the last step, in a process that has trained a run before."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Optimizer steps, training tokens (padding not counted) and seconds of one run; None: no estimate.

    The seconds are right within the factor `within`.
    """

    steps: int | None
    tokens: int | None
    seconds: float | None
    within: float = 1.0

    @property
    def span(self) -> tuple[float, float] | None:
        """The lowest and the highest seconds."""
        return None if self.seconds is None else (self.seconds / self.within, self.seconds * self.within)


def cost_of(config: Mapping[str, Any], rows: Rows | None, encoder: Encoder | None, *, measured: float | None) -> Cost:
    """Return the cost of a run on `rows`; `measured`: training tokens per second of earlier runs, if any.

    With `T` the training and `E` the evaluation tokens of all epochs, and `p = passes_of(config)`:
    `seconds = FIXED_SECONDS + (T + E / p) / measured`, or without earlier runs
    `seconds = FIXED_SECONDS + (p T + E) flops_per_token / (EFFICIENCY flops_per_second)`, measured on the device that
    trains. If that is not here, the seconds are None.
    """
    if rows is None:
        return Cost(steps=None, tokens=None, seconds=None)
    epochs = config["trainer"]["max_epochs"]
    batches = -(-rows.train // config["task"]["batch_size"])
    steps = -(-batches // config["trainer"]["accumulate_grad_batches"]) * epochs
    tokens, evaluated = (round(count * rows.tokens * epochs) for count in (rows.train, rows.evaluated))
    passes = passes_of(config)
    device = device_here(config["trainer"].get("accelerator", "auto"))
    if device is None or (measured is None and encoder is None):
        return Cost(steps=steps, tokens=tokens, seconds=None)
    if measured is not None:
        seconds = FIXED_SECONDS + (tokens + evaluated / passes) / measured
        return Cost(steps=steps, tokens=tokens, seconds=seconds, within=WITHIN_MEASURED)
    assert encoder is not None
    flops = (passes * tokens + evaluated) * encoder.flops_per_token(rows.tokens)
    speed = EFFICIENCY[device] * flops_per_second(device, config["trainer"].get("precision", "32-true"))
    return Cost(steps=steps, tokens=tokens, seconds=FIXED_SECONDS + flops / speed, within=WITHIN[device])


def passes_of(config: Mapping[str, Any]) -> float:
    """Return the cost of a training step in forward passes: 1 if only the head trains, 3 if all trains, else 2.

    A backward pass costs one forward pass for the activations' gradients, and one for the weights' unless frozen.
    """
    trainable = config["adapter"].get("trainable")  # patterns of a baseline; a variant has none
    if trainable is None:
        return 2.0
    return 3.0 if ".*" in trainable else 2.0 if trainable else 1.0


@cache
def flops_per_second(device: str, precision: str, rounds: int = 7) -> float:
    """Measure the FLOP/s of a matrix product of an encoder's shape on `device`, median of `rounds`.

    `precision` is the trainer's: `bf16-mixed` multiplies bf16 matrices.
    """
    import torch  # noqa: PLC0415 - slow to import

    kinds = {"bf16": torch.bfloat16, "16": torch.float16, "64": torch.float64}
    dtype = kinds.get(precision.partition("-")[0], torch.float32)
    left, right = (torch.randn(*shape).to(device, dtype) for shape in ((512, 768), (768, 3072)))
    synchronize = torch.accelerator.synchronize if device != "cpu" else lambda: None
    times = []
    for _ in range(rounds):
        synchronize()
        started = time.perf_counter()
        torch.mm(left, right)
        synchronize()
        times.append(time.perf_counter() - started)
    return 2 * 512 * 768 * 3072 / statistics.median(times)


def training_flops(config: DictConfig) -> float:
    """Return the FLOPs of training the run of `config`, evaluation excluded: `passes x tokens x flops_per_token`.

    Raises:
        ValueError: if the size of its task or model is not known.
    """
    plain = {name: cast("dict[str, Any]", OmegaConf.to_container(config[name], resolve=True)) for name in DECISIVE}
    rows, encoder = rows_of(plain), encoder_of(plain["model"])
    if rows is None or encoder is None:
        raise ValueError("there is no size for the task or the model")
    tokens = cost_of(plain, rows, encoder, measured=1.0).tokens or 0
    return passes_of(plain) * tokens * encoder.flops_per_token(rows.tokens)


def longest_first(jobs: Sequence[Sequence[str]], *, config: DictConfig, loader: ConfigLoader) -> list[int]:
    """Return the indices of `jobs` by falling training FLOPs; equal ones keep the given order.

    A long job started last would keep one worker busy while the others are idle. The given order is returned if a job
    has no estimate.
    """
    kinds = [tuple(override for override in overrides if _decides(override)) for overrides in jobs]
    given = list(range(len(jobs)))
    if len(set(kinds)) < 2:
        return given
    try:
        flops = {kind: training_flops(loader.load_sweep_config(config, list(kind))) for kind in dict.fromkeys(kinds)}
    except Exception as error:  # the job will raise it itself
        log.debug("the jobs have no estimate: %s", error)
        return given
    return sorted(given, key=lambda index: -flops[kinds[index]])


def _decides(override: str) -> bool:
    key = override.partition("=")[0]
    return key.partition(".")[0].partition("@")[0] in DECISIVE and not key.startswith("adapter.")
