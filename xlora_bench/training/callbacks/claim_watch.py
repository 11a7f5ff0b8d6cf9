"""Ends a run whose claim another process has taken, and writes how far a run is."""

import json
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import lightning

from xlora_bench.runs.claim import Claim

SECONDS = 5.0
"""Time between two looks at the claim."""


class ClaimWatch(lightning.Callback):
    """Checks the claim every few seconds and before each checkpoint.

    Each time it writes to `path` as JSON: `epoch` (whole ones), `step` and `steps` of the optimizer, and the `time`.

    Raises:
        ClaimLostError: in a hook, if the claim was lost.
    """

    def __init__(self, claim: Claim, path: Path) -> None:
        self.claim = claim
        self.path = path
        self._next = 0.0

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Look at the claim, unless the last look was just now."""
        if time.monotonic() >= self._next:
            self._look(trainer)

    def on_validation_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        """As after a training batch."""
        self.on_train_batch_end(trainer)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Look at the claim before anything is saved."""
        self._look(trainer)

    def _look(self, trainer: lightning.Trainer) -> None:
        self.claim.check()
        steps = trainer.estimated_stepping_batches  # infinite without a limit
        state = {"epoch": trainer.current_epoch, "step": trainer.global_step, "steps": steps, "time": time.time()}
        with suppress(OSError):  # a full disk; the checkpoint tells
            self.path.write_text(json.dumps(state))
        self._next = time.monotonic() + SECONDS
