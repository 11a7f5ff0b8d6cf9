"""One training step: the penalty is in the loss, and the hook after the optimizer step gets its number."""

import copy

import lightning
import pytest
import torch
from torch.utils.data import DataLoader

from tests.helpers.classifiers import bert, perturb, sentences
from xlora_bench import inject
from xlora_bench.adapters import Orthogonal, OrthogonalQR
from xlora_bench.data.task import TextTask
from xlora_bench.inject.methods import as_method
from xlora_bench.inject.methods.native import NativeMethod
from xlora_bench.inject.targets import Targets
from xlora_bench.training.loop.module import Classifier
from xlora_bench.training.loop.optimizers import AdamW, Schedule

pytestmark = pytest.mark.slow


class Recorded(Classifier):
    """A classifier that keeps the gradients of each step, and is not evaluated."""

    validation_step = None

    def on_before_optimizer_step(self, optimizer):
        grads = {name: p.grad.clone() for name, p in self.model.named_parameters() if p.grad is not None}
        self.gradients = [*getattr(self, "gradients", []), grads]


def fitted(net, adapter, *, batches=1, kind=Recorded, **options):
    """Train on `batches` batches of four sentences each, and return the classifier, which is of class `kind`."""
    batch = sentences(4) | {"labels": torch.tensor([0, 1, 1, 0])}
    task = TextTask(
        name="x", text_columns=("text",), labels=("a", "b"), metrics=("accuracy",), headline="accuracy", batch_size=4
    )
    classifier = kind(
        net,
        method=as_method(adapter),
        task=task,
        optimizer=AdamW(lr=1e-3),
        schedule=Schedule(name="constant"),
        head=set(),
    )
    silent = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = lightning.Trainer(max_epochs=1, accelerator="cpu", **silent, **options)
    trainer.fit(classifier, DataLoader([batch] * batches, batch_size=None))
    return classifier


def adapted(adapter):
    net = inject.inject(bert(2).train(), adapter, targets=Targets(modules=["query"]))
    perturb(inject.adapter_parameters(net))
    return net


def test_the_penalty_is_in_the_gradient():
    net = adapted(Orthogonal(rank=2, penalty_weight=0.5))
    other = copy.deepcopy(net)
    for delta in inject.deltas(other).values():
        delta.penalty_weight = 0.0
    inject.penalty(net).backward()
    expected = {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}
    net.zero_grad()
    with_penalty = fitted(net, Orthogonal(rank=2, penalty_weight=0.5)).gradients[0]
    without = fitted(other, Orthogonal(rank=2, penalty_weight=0.0)).gradients[0]
    assert expected
    for name, gradient in expected.items():
        assert gradient.any()
        torch.testing.assert_close(with_penalty[name] - without[name], gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("window", "steps"), [(1, [1, 2, 3, 4, 5, 6]), (2, [1, 2, 3])])
def test_the_hook_after_a_step_gets_its_number(window, steps, monkeypatch):
    counted = []
    adapter = OrthogonalQR(rank=2)
    net = adapted(adapter)
    monkeypatch.setattr(NativeMethod, "post_optimizer_step", lambda _self, _net, step: counted.append(step))
    fitted(net, adapter, batches=6, accumulate_grad_batches=window)
    assert counted == steps


class Diverging(Recorded):
    """A classifier whose loss is NaN from the third batch on."""

    def loss(self, logits, labels):
        self.calls = getattr(self, "calls", 0) + 1
        loss = super().loss(logits, labels)
        return loss * float("nan") if self.calls >= 3 else loss


def test_a_loss_that_is_not_finite_ends_training_at_once():
    adapter = OrthogonalQR(rank=2)
    net = adapted(adapter)
    other = fitted(copy.deepcopy(net), adapter, batches=2).model
    classifier = fitted(net, adapter, batches=6, kind=Diverging)
    assert classifier.calls == 3
    assert classifier.collapse == "the training loss is nan at step 3"
    for name, parameter in other.named_parameters():  # nothing is left of the third step
        assert torch.equal(parameter, net.get_parameter(name)), name


def test_only_active_adapters_are_penalised():
    net = bert(2)
    for name, weight in (("one", 0.5), ("other", 2.0)):
        inject.add_adapter(net, name, Orthogonal(rank=2, penalty_weight=weight), targets=Targets(modules=["query"]))
        perturb(inject.adapter_parameters(net, name))
    terms = {name: [delta.penalty().item() for delta in inject.deltas(net, name).values()] for name in ("one", "other")}
    for name, own in terms.items():
        with inject.use_adapters(net, name):
            assert inject.penalty(net).item() == pytest.approx(sum(own) / len(own))
    with inject.disabled(net):
        assert inject.penalty(net) is None
