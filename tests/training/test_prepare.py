"""What `prepare` chooses."""

import lightning
import pytest
import torch

from tests.helpers.classifiers import bert
from xlora_bench import inject
from xlora_bench.adapters import LoRA
from xlora_bench.inject.targets import Targets
from xlora_bench.training.prepare import placed

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
