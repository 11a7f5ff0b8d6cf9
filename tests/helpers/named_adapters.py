"""A model with several adapters, and what tests ask of it."""

import pytest
import torch

from tests.helpers.classifiers import perturb, roberta, sentences
from xlora_bench import inject
from xlora_bench.adapters import LoLDU, LoRA, Orthogonal
from xlora_bench.inject.targets import Targets

QV = Targets(modules=["query", "value"])
QK = Targets(modules=["query", "key"])


def stacked(*names, base=None):
    """Return a RoBERTa classifier with an adapter of its own rank, variant and targets for each name."""
    net = base or roberta(2)
    kinds = [(LoRA(rank=2), QV), (Orthogonal(rank=3, alpha=5), QK), (LoLDU(rank=4), QV)]
    for place, name in enumerate(names):
        adapter, targets = kinds[place % 3]
        inject.add_adapter(net, name, adapter, targets=targets)
        perturb(inject.adapter_parameters(net, name), seed=place)
    return net


def logits(net, batch=None):
    return net(**(sentences() if batch is None else batch)).logits


def used(net, *names, **options):
    with torch.no_grad(), inject.use_adapters(net, list(names), **options):
        return logits(net)


def snapshot(net):
    """Return everything that a refused call must leave as it was."""
    return (
        {name: tensor.tolist() for name, tensor in net.state_dict().items()},
        {name: parameter.requires_grad for name, parameter in net.named_parameters()},
        [(path, type(module).__name__) for path, module in net.named_modules()],
        inject.query.active_weights(net),
    )


def refused(net, call, message):
    before = snapshot(net)
    with pytest.raises(ValueError, match=message):
        call()
    assert snapshot(net) == before
