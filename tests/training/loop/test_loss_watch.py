"""The watch for losses that are not finite."""

import pytest
import torch

from xlora_bench.training.loop.loss_watch import LossWatch


class Event:
    """An event of a device that has not come so far: only `done` steps have ended."""

    done, made = 0, 0

    def __init__(self, device):
        Event.made += 1
        self.number = Event.made

    def record(self):
        pass

    def query(self):
        return self.number <= Event.done

    def synchronize(self):
        Event.done = max(Event.done, self.number)


class OnDevice:
    """A loss that a device is still computing."""

    device = torch.device("cuda")

    def __init__(self, value):
        self.value = torch.tensor(value)

    def detach(self):
        return self

    def float(self):
        return self

    def to(self, where, *, non_blocking):
        assert (where, non_blocking) == ("cpu", True)
        return self.value


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_on_the_cpu_a_fault_is_noticed_at_once(kind):
    watch = LossWatch()
    watch.add(torch.tensor(0.5, dtype=kind, requires_grad=True), step=1)
    assert watch.fault() is None
    watch.add(torch.tensor(float("nan"), dtype=kind), step=2)
    assert watch.fault() == "the training loss is nan at step 2"
    assert watch.fault() is None


def test_elsewhere_it_is_noticed_when_it_has_arrived(monkeypatch):
    monkeypatch.setattr(torch, "Event", Event)
    Event.done = Event.made = 0
    watch = LossWatch()
    for step, value in enumerate((1.0, float("inf"), 2.0), start=1):
        watch.add(OnDevice(value), step=step)
        assert watch.fault() is None
    Event.done = 1
    assert watch.fault() is None
    Event.done = 2
    assert watch.fault() == "the training loss is inf at step 2"
    watch.add(OnDevice(float("-inf")), step=4)
    assert watch.fault() is None
    assert watch.fault(wait=True) == "the training loss is -inf at step 4"
