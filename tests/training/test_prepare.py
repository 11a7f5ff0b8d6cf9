"""What `prepare` chooses."""

import lightning
import pytest
import torch

from tests.helpers.classifiers import bert
from tests.helpers.names import configured
from xlora_bench import inject
from xlora_bench.adapters import LoRA
from xlora_bench.inject.targets import Targets
from xlora_bench.runs.config_hash import config_hash
from xlora_bench.training.prepare import placed, trainer_of

SILENT = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)


@pytest.mark.parametrize(("precision", "base"), [("32-true", torch.float32), ("bf16-true", torch.bfloat16)])
def test_the_packing_is_checked_on_the_model_as_it_trains(precision, base):
    net = inject.inject(bert(), LoRA(rank=2), targets=Targets(modules=["query"]))
    trainer = lightning.Trainer(accelerator="cpu", precision=precision, **SILENT)
    assert placed(net, trainer) is net
    types = {name: weight.dtype for name, weight in net.named_parameters()}
    trainer.strategy.model = net
    trainer.strategy.model_to_device()
    assert types == {
        name: weight.dtype for name, weight in trainer.precision_plugin.convert_module(net).named_parameters()
    }
    assert {kind for name, kind in types.items() if "deltas" not in name} == {base}
    assert {kind for name, kind in types.items() if "deltas" in name} == {torch.float32}


@pytest.mark.parametrize("on", [True, False, None])
def test_tf32_is_off_unless_it_is_asked_for(on, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)  # torch's default
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", not on)
    options = {"_target_": "lightning.Trainer", "accelerator": "cpu", "tf32": on}
    assert isinstance(trainer_of(options, **SILENT), lightning.Trainer)
    assert torch.backends.cudnn.allow_tf32 is bool(on)
    assert torch.backends.cuda.matmul.allow_tf32 is bool(on)


def test_the_default_of_tf32_keeps_the_ids_of_older_runs():
    node = dict(configured().trainer)
    assert "tf32" in node
    older = {key: value for key, value in node.items() if key != "tf32"}
    same, other = ({"trainer": {**node, "tf32": value}} for value in (None, True))
    assert config_hash(same, data="") == config_hash({"trainer": older}, data="") != config_hash(other, data="")
