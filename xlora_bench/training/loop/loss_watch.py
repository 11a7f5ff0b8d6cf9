"""Notice a training loss that is not finite without waiting for the device."""

import math
from collections import deque

import torch
from torch import Tensor


class LossWatch:
    """Copies the loss of every step to the host and reads it when it has arrived.

    On the CPU that is at once. A GPU computes a step while the next ones are issued; to wait for its loss would leave
    it idle. There a fault is noticed some steps later, and at the latest at the end of the epoch.
    """

    def __init__(self) -> None:
        self._under_way: deque[tuple[int, Tensor, torch.Event | None]] = deque()

    def add(self, loss: Tensor, *, step: int) -> None:
        """Start to copy the loss `()` of optimizer step number `step`."""
        copy = loss.detach().float().to("cpu", non_blocking=True)  # from a GPU: to pinned memory, in the background
        event = None if loss.device.type == "cpu" else torch.Event(loss.device)
        if event is not None:
            event.record()
        self._under_way.append((step, copy, event))

    def fault(self, *, wait: bool = False) -> str | None:
        """Return the first loss that is not finite and has arrived, or None; with `wait`, wait for all of them."""
        while self._under_way:
            step, copy, event = self._under_way[0]
            if event is not None and wait:
                event.synchronize()
            if event is not None and not event.query():
                return None
            self._under_way.popleft()
            value = float(copy.numpy())
            if not math.isfinite(value):
                self._under_way.clear()
                return f"the training loss is {value} at step {step}"
        return None
