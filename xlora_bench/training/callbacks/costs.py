"""Costs of a run: seconds, throughput, peak memory."""

import time
from typing import Any

import lightning
import psutil
import torch


class Costs(lightning.Callback):
    """Sums training and evaluation seconds, samples and tokens over all epochs, including those before a restart.

    Peak memory in bytes: of a run on a GPU that of torch's allocator, else the largest resident size at the end of a
    batch.
    """

    def __init__(self) -> None:
        self.sums = {"train_seconds": 0.0, "eval_seconds": 0.0, "samples": 0, "tokens": 0}
        self.peak_memory_bytes = 0
        self._epoch_start = 0.0
        self._eval_start = 0.0
        self._eval_in_epoch = 0.0

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Reset the GPU's peak memory, which torch counts per process, not per run."""
        device = trainer.strategy.root_device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Start the timer of an epoch."""
        self._epoch_start, self._eval_in_epoch = time.perf_counter(), 0.0

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Add samples and tokens of the batch; update the peak memory."""
        self.sums["samples"] += len(batch["labels"])
        self.sums["tokens"] += int(batch["tokens"])
        device = trainer.strategy.root_device
        on_gpu = device.type == "cuda"
        used = torch.cuda.max_memory_allocated(device) if on_gpu else psutil.Process().memory_info().rss
        self.peak_memory_bytes = max(self.peak_memory_bytes, used)

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Start the timer of an evaluation."""
        self._eval_start = time.perf_counter()

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Add the time of an evaluation, which is part of its epoch's time."""
        self._eval_in_epoch += time.perf_counter() - self._eval_start

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Add the seconds of the epoch, split into training and evaluation."""
        self.sums["eval_seconds"] += self._eval_in_epoch
        self.sums["train_seconds"] += time.perf_counter() - self._epoch_start - self._eval_in_epoch

    def state_dict(self) -> dict[str, Any]:
        """Return the sums for the checkpoint."""
        return {**self.sums, "peak_memory_bytes": self.peak_memory_bytes}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from the sums of the interrupted run."""
        self.sums = {key: state_dict[key] for key in self.sums}
        self.peak_memory_bytes = state_dict["peak_memory_bytes"]

    def summary(self) -> dict[str, float]:
        """Return the cost entries of the record: seconds, rates per training second, peak memory in bytes."""
        seconds = self.sums["train_seconds"]
        rates = {f"{unit}_per_second": self.sums[unit] / seconds if seconds else 0.0 for unit in ("samples", "tokens")}
        times = {key: self.sums[key] for key in ("train_seconds", "eval_seconds")}
        return {**times, **rates, "peak_memory_bytes": self.peak_memory_bytes}
