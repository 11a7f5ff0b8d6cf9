"""Run commands on a pseudo-terminal, and steps that take their time."""

import fcntl
import os
import pty
import struct
import subprocess
import termios
import threading
import time
from pathlib import Path

import lightning

from tests.helpers.names import ROOT
from xlora_bench.training.callbacks import claim_watch


class Terminal:
    """A command whose input and output are a pseudo-terminal of 40 lines and 160 columns."""

    def __init__(self, *words: str) -> None:
        self.main, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 160, 0, 0))
        environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR")}
        environment |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TERM": "xterm", "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
        os.close(theirs)
        self._chunks: list[bytes] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                chunk = os.read(self.main, 65536)
            except OSError:  # the last process has closed it
                return
            if not chunk:
                return
            self._chunks.append(chunk)

    def transcript(self, timeout: float = 120) -> str:
        """Wait for the command; return all that it wrote."""
        try:
            self.process.wait(timeout)
        finally:
            self.process.kill()
        self._reader.join(5)
        return b"".join(self._chunks).decode()


class SlowSteps(lightning.Callback):
    """Sleeps after each step, and lets the file on the progress of the run be written at each of them."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        claim_watch.SECONDS = 0.0

    def on_train_batch_end(self, *_):
        time.sleep(self.seconds)


def slow_groups(folder: Path, seconds: float) -> tuple[str, ...]:
    """Write the group choice `callbacks=slow` below `folder`; return the words that choose it."""
    path = folder / "groups" / "callbacks" / "slow.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(f"slow:\n  _target_: tests.helpers.terminals.SlowSteps\n  seconds: {seconds}\n")
    return "--config-dir", str(path.parents[1]), "callbacks=slow"
