"""A logger of a user's own, derived from Lightning's."""

import json
from pathlib import Path

from lightning.pytorch.loggers import Logger


class RecordingLogger(Logger):
    """Writes each logged step as a line of JSON to `save_dir`."""

    def __init__(self, save_dir: str, run_name: str, *, file: str = "curves.jsonl"):
        super().__init__()
        self.path, self.run_name = Path(save_dir, file), run_name

    @property
    def name(self):
        return "recording"

    @property
    def version(self):
        return 0

    def log_hyperparams(self, params, *args, **kwargs):
        self.log_metrics(dict(params))

    def log_metrics(self, metrics, step=None):
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, "run_name": self.run_name, **metrics}) + "\n")
