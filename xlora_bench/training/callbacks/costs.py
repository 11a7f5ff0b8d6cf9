"""Costs of a run: wall-clock and CPU seconds, throughput, peak memory."""

import math
import time
from typing import Any

import lightning
import numpy as np
import torch

from xlora_bench.system.ranks import ALONE, Ranks


class Costs(lightning.Callback):
    """Sums training and evaluation seconds, samples and tokens over all epochs, including those before a restart.

    CPU seconds are those of training, of all threads of this process; processes that make batches are not counted.
    Peak memory in bytes is that of torch's allocator on a GPU. A run on a CPU has none: the memory of its process
    includes what earlier runs left. On several ranks, CPU seconds, samples and tokens are sums over them; the other
    seconds and the memory are those of the first one.
    """

    def __init__(self, ranks: Ranks = ALONE) -> None:
        self.ranks = ranks
        self.sums = {"train_seconds": 0.0, "cpu_seconds": 0.0, "eval_seconds": 0.0, "samples": 0, "tokens": 0}
        self.peak_memory_bytes: int | None = None
        self._epoch_start, self._eval_start, self._eval_in_epoch = np.zeros((3, 2))
        self._before = dict(self.sums)

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Reset the GPU's peak memory, which torch counts per process, not per run."""
        device = trainer.strategy.root_device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Start the timer of an epoch."""
        self._epoch_start, self._eval_in_epoch, self._before = _clocks(), np.zeros(2), dict(self.sums)

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Add samples and tokens of the batch; update the peak memory of a GPU."""
        if self.ranks.world == 1 or trainer.train_dataloader.batch_sampler.rows_in(batch_idx)[0]:  # type: ignore[union-attr]
            self.sums["samples"] += len(batch["labels"])
            self.sums["tokens"] += int(batch["tokens"])
        device = trainer.strategy.root_device
        if device.type == "cuda":
            self.peak_memory_bytes = max(self.peak_memory_bytes or 0, torch.cuda.max_memory_allocated(device))

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Start the timer of an evaluation."""
        self._eval_start = _clocks()

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Add the time of an evaluation, which is part of its epoch's time."""
        self._eval_in_epoch += _clocks() - self._eval_start

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Add the seconds of the epoch, split into training and evaluation."""
        wall, cpu = _clocks() - self._epoch_start - self._eval_in_epoch
        self.sums["train_seconds"] += float(wall)
        self.sums["cpu_seconds"] += float(cpu)
        self.sums["eval_seconds"] += float(self._eval_in_epoch[0])
        if self.ranks.world > 1:
            device, names = trainer.strategy.root_device, ("cpu_seconds", "samples", "tokens")
            added = [self.sums[name] - self._before[name] for name in names]
            totals = self.ranks.total(torch.tensor(added, dtype=torch.float64, device=device)).tolist()
            self.sums |= {name: self._before[name] + total for name, total in zip(names, totals, strict=True)}

    def state_dict(self) -> dict[str, Any]:
        """Return the sums for the checkpoint."""
        return {**self.sums, "peak_memory_bytes": self.peak_memory_bytes}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from the sums of the interrupted run.

        A checkpoint of an older version has no CPU seconds, and its memory on a CPU was that of the process.
        """
        self.sums = {key: state_dict.get(key, math.nan) for key in self.sums}
        self.peak_memory_bytes = state_dict["peak_memory_bytes"] if "cpu_seconds" in state_dict else None

    def summary(self) -> dict[str, float | None]:
        """Return the cost entries of the record: seconds, rates per training second, peak memory in bytes.

        The CPU seconds of a run that went on from a checkpoint without them, and the memory on a CPU, are None.
        """
        seconds = self.sums["train_seconds"]
        rates = {f"{unit}_per_second": self.sums[unit] / seconds if seconds else 0.0 for unit in ("samples", "tokens")}
        cpu = None if math.isnan(self.sums["cpu_seconds"]) else self.sums["cpu_seconds"]
        times = {"train_seconds": seconds, "cpu_seconds": cpu, "eval_seconds": self.sums["eval_seconds"]}
        return {**times, **rates, "peak_memory_bytes": self.peak_memory_bytes}


def _clocks() -> np.ndarray:
    """Return the seconds of the wall clock and the CPU seconds of this process, (2,); only differences have a sense."""
    return np.array([time.perf_counter(), time.process_time()])
