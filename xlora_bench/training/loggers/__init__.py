"""Loggers of a run: where its curves go. Tables are made from records, never from loggers."""

from xlora_bench.training.loggers.run_logs import CSVLogs, LightningLogs, RunLabels, RunLogs, flatten
from xlora_bench.training.loggers.trackio_logs import TrackioLogs
from xlora_bench.training.loggers.wandb_logs import WandbLogs

__all__ = ["CSVLogs", "LightningLogs", "RunLabels", "RunLogs", "TrackioLogs", "WandbLogs", "flatten"]
