"""`factors.csv` of a run that goes on: the rows up to its checkpoint, also after a kill while they are written."""

from types import SimpleNamespace

import pytest

from xlora_bench.training.callbacks import factors
from xlora_bench.training.callbacks.factors import FactorMonitor, append


@pytest.fixture
def monitor(tmp_path):
    monitor = FactorMonitor(tmp_path)
    append(monitor.path, [{"step": step, "norm_B": 1.0} for step in (2, 4, 6)])
    return monitor


def start(monitor, checkpoint, step):
    monitor.on_train_start(SimpleNamespace(ckpt_path=checkpoint, global_step=step), None)


def test_the_rows_after_the_checkpoint_go(monitor):
    start(monitor, "last.ckpt", 4)
    assert monitor.path.read_text().split() == ["step,norm_B", "2,1.0", "4,1.0"]
    start(monitor, None, 0)
    assert not monitor.path.exists()


def test_a_kill_while_the_rows_are_written_leaves_the_old_ones(monitor, monkeypatch):
    before = monitor.path.read_bytes()

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(factors, "append", killed)
    with pytest.raises(KeyboardInterrupt):
        start(monitor, "last.ckpt", 4)
    assert monitor.path.read_bytes() == before
