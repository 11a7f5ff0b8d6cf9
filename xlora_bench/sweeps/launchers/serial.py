"""`hydra/launcher=serial`, the default: one job after another, in this process."""

import time
from typing import Any

from omegaconf import DictConfig

from xlora_bench.sweeps.launchers.launcher import RunLauncher
from xlora_bench.sweeps.launchers.schedule import Call, Executor


class SerialLauncher(RunLauncher):
    """Runs jobs one after another in this process."""

    in_process = True

    def executor(self, config: DictConfig) -> Executor:
        """Return an executor without workers."""
        return InProcess()


class InProcess:
    """Executes one call at a time, when it is waited for."""

    slots = attempts = 1
    waits = True

    def __init__(self) -> None:
        self._next: tuple[int, Call] | None = None

    def submit(self, index: int, call: Call) -> None:
        """Keep the call."""
        self._next = index, call

    def wait(self, timeout: float | None) -> list[tuple[int, Any]]:
        """Execute the call; without one, sleep."""
        if self._next is None:
            time.sleep(timeout or 0)
            return []
        (index, call), self._next = self._next, None
        try:
            return [(index, call())]
        except Exception as error:  # Hydra itself failed, such as at its job folder
            return [(index, error)]

    def close(self) -> None:
        """Do nothing: there are no workers."""
