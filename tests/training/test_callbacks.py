"""Callbacks of a run: which epoch's adapter is kept, the dropout masks of each epoch, and its costs."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from xlora_bench.runs.seeds import derive
from xlora_bench.system.ranks import Ranks
from xlora_bench.training.callbacks.checkpoint import EpochCheckpoint
from xlora_bench.training.callbacks.costs import Costs
from xlora_bench.training.callbacks.streams import EpochStreams
from xlora_bench.training.loop.evaluation import Evaluation


@pytest.mark.parametrize(
    ("scores", "kept"), [([0.5, 0.9, 0.7], 2), ([0.9, 0.5, 0.7], 1), ([0.1, 0.2, 0.3], 3), ([0.5, 0.5, 0.5], 1)]
)
def test_the_adapter_of_the_best_epoch_is_kept(scores, kept, tmp_path):
    from safetensors.torch import load_file

    callback = EpochCheckpoint(tmp_path)
    callback.path.parent.mkdir()
    model = nn.Linear(1, 1, bias=False)
    module = SimpleNamespace(model=model, evaluations=[], task=SimpleNamespace(headline="accuracy"), collapse=None)
    trainer = SimpleNamespace(save_checkpoint=lambda path: path.write_bytes(b""))
    for epoch, score in enumerate(scores, start=1):
        model.weight.data.fill_(float(epoch))
        module.evaluations.append(Evaluation(epoch=epoch, metrics={"accuracy": score}, splits={}))
        callback.on_train_epoch_end(trainer, module)
    assert load_file(tmp_path / "adapter_best.safetensors")["weight"].item() == kept


def test_nothing_is_kept_after_a_collapse(tmp_path):
    module = SimpleNamespace(collapse="the loss is nan")
    EpochCheckpoint(tmp_path).on_train_epoch_end(SimpleNamespace(), module)
    assert list(tmp_path.iterdir()) == []


def test_each_epoch_has_masks_of_its_own_that_a_seed_repeats():
    def draws(seed, epoch):
        EpochStreams(seed).on_train_epoch_start(SimpleNamespace(current_epoch=epoch), None)
        return torch.rand(4)

    with torch.random.fork_rng():
        first = draws(0, 0)
        assert torch.equal(first, draws(0, 0))
        assert not torch.equal(first, draws(0, 1))
        assert not torch.equal(first, draws(1, 0))
        assert torch.initial_seed() == derive(1, "dropout", 0)


def test_each_rank_has_masks_of_its_own_and_the_first_one_those_of_one_device():
    with torch.random.fork_rng():
        for rank, purpose in ((0, ("dropout", 4)), (1, ("dropout", 4, 1))):
            streams = EpochStreams(7, Ranks(rank=rank, world=2))
            streams.on_train_epoch_start(SimpleNamespace(current_epoch=4), None)
            assert torch.initial_seed() == derive(7, *purpose)


def test_training_and_evaluation_have_their_wall_clock_and_cpu_seconds(monkeypatch):
    clocks = iter([(0, 0), (10, 15), (14, 17), (20, 30), (50, 60), (51, 62)])
    monkeypatch.setattr("xlora_bench.training.callbacks.costs._clocks", lambda: np.array(next(clocks), dtype=float))
    costs = Costs()
    costs.on_train_epoch_start(None, None)
    costs.on_validation_start(None, None)
    costs.on_validation_end(None, None)
    costs.on_train_epoch_end(None, None)
    resumed = Costs()
    resumed.load_state_dict(costs.state_dict())
    resumed.on_train_epoch_start(None, None)
    resumed.on_train_epoch_end(None, None)
    cost = resumed.summary()
    assert (cost["train_seconds"], cost["cpu_seconds"], cost["eval_seconds"]) == (20 - 4 + 1, 30 - 2 + 2, 4)


def test_an_older_checkpoint_has_neither_cpu_seconds_nor_memory_of_its_run():
    older = {"train_seconds": 2.0, "eval_seconds": 1.0, "samples": 8, "tokens": 64, "peak_memory_bytes": 10**9}
    costs = Costs()
    costs.load_state_dict(older)
    cost = costs.summary()
    assert (cost["cpu_seconds"], cost["peak_memory_bytes"]) == (None, None)
    assert (cost["train_seconds"], cost["tokens_per_second"]) == (2.0, 32.0)
