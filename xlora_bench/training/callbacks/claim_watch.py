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
    """Checks the claim every few seconds and before each checkpoint (None: another process checks it).

    Each time it writes to `path` as JSON: `epoch` (whole ones), `step` and `steps` of the optimizer, the `time`, and
    `seconds_left` as the steps since the first look predict it (null as long as there is no such step).

    Raises:
        ClaimLostError: in a hook, if the claim was lost.
    """

    def __init__(self, claim: Claim | None, path: Path) -> None:
        self.claim = claim
        self.path = path
        self._next = 0.0
        self._first: tuple[int, float] | None = None

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
        if self.claim is not None:
            self.claim.check()
        now, step = time.time(), trainer.global_step
        steps = trainer.estimated_stepping_batches  # infinite without a limit
        first_step, first = self._first = self._first or (step, now)
        left = (steps - step) * (now - first) / (step - first_step) if step > first_step else None
        state = {"epoch": trainer.current_epoch, "step": step, "steps": steps, "time": now, "seconds_left": left}
        with suppress(OSError):  # a full disk; the checkpoint tells
            self.path.write_text(json.dumps(state))
        self._next = time.monotonic() + SECONDS
