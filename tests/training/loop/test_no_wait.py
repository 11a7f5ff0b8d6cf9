"""A training step does not wait for its device.

On `meta` tensors any read of a value raises, and so does an operation with a tensor of another device. On a GPU torch
itself refuses what waits.
"""

from types import SimpleNamespace

import pytest
import torch

from tests.helpers.architectures import build, sentences, tokenizer_of
from tests.helpers.names import part
from tests.test_conformance import VARIANTS
from xlora_bench import inject
from xlora_bench.data.packing import PackedCollator
from xlora_bench.data.task import TextTask
from xlora_bench.inject.methods import as_method
from xlora_bench.models.packed.structure import position_offset
from xlora_bench.models.speedups import use_attention
from xlora_bench.training.loop.module import Classifier
from xlora_bench.training.loop.optimizers import AdamW, Schedule

__all__ = ["build", "sentences", "tokenizer_of"]

TASK = TextTask(
    name="x", text_columns=("text",), labels=("a", "b", "c"), metrics=("accuracy",), headline="accuracy", batch_size=4
)


class Alone(Classifier):
    """A classifier without a trainer."""

    trainer = SimpleNamespace(accumulate_grad_batches=1, train_dataloader=None)
    global_step = 0

    def log(self, *_, **__):
        pass


@pytest.fixture
def classifier(build):
    def classifier(adapter, architecture):
        net, method = build(architecture, dropout=0.1), part("adapter", adapter, "adapter.rank=2")
        use_attention(net)
        inject.inject(net, method, targets=part("targets", "attention_qv"), init_scheme=method.default_init())
        for name, parameter in net.named_parameters():
            parameter.requires_grad_(parameter.requires_grad or "classifier" in name)
        schedule = Schedule(name="constant")
        return Alone(
            net.train(), method=as_method(method), task=TASK, optimizer=AdamW(lr=1e-3), schedule=schedule, head=set()
        )

    return classifier


@pytest.fixture
def packed(tokenizer_of, sentences):
    def packed(model, device):
        collator = PackedCollator(tokenizer_of(model), row_lengths=(16,), position_offset=position_offset(model))
        batch = collator(sentences([5, 9, 16, 3]))
        return {name: value.to(device) if torch.is_tensor(value) else value for name, value in batch.items()}

    return packed


def step(classifier, batch):
    """Do what Lightning does in a step with clipping."""
    model, ratios = classifier.model, classifier.method.lr_ratios(classifier.model)
    optimizer = classifier.optimizer_options.build(model, set(), ratios, fused=False)
    classifier.training_step(batch, 0).backward()
    torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
    optimizer.step()
    classifier.method.post_optimizer_step(model, 1)


@pytest.mark.parametrize(("adapter", "architecture"), [*((name, "bert") for name in VARIANTS), ("lora", "deberta-v3")])
def test_no_value_is_read_in_a_step(classifier, packed, adapter, architecture):
    one = classifier(adapter, architecture)
    batch = packed(one.model, "meta")
    one.to("meta")
    one.losses = SimpleNamespace(add=lambda *_, **__: None, fault=lambda **_: None)  # test_loss_watch.py
    step(one, batch)


@pytest.mark.gpu
@pytest.mark.parametrize("adapter", VARIANTS)
def test_no_step_waits_for_a_gpu(classifier, packed, adapter):
    one = classifier(adapter, "bert").cuda()
    batch = packed(one.model, "cuda")
    step(one, batch)  # libraries are loaded in the first one
    torch.cuda.set_sync_debug_mode("error")
    try:
        step(one, batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
