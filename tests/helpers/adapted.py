"""Adapt one layer, and move its update away from zero."""

import copy

import torch
from torch import nn

from tests.helpers.names import part
from xlora_bench import inject
from xlora_bench.inject.targets import Targets


def adapted(layer, adapter="lora", scheme=None, *, rank=2, alpha=6.0, dropout=0.0):
    """Return a copy of `layer` as an adapted layer (alpha is not rank, so that a forgotten scaling shows)."""
    method = part("adapter", adapter, f"adapter.rank={rank}", f"adapter.alpha={alpha}", f"adapter.dropout={dropout}")
    start = part("init_scheme", scheme) if scheme else method.default_init()
    return inject.inject(copy.deepcopy(layer), method, targets=Targets(modules=[""]), init_scheme=start)


def perturbed(model):
    """Move every trained entry of `model`'s adapters away from its start, and return `model`."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for delta in inject.deltas(model).values():
            for parameter in delta.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def matrix(layer):
    """Return the dense update `(out, in)` of an adapted layer."""
    return layer.deltas["default"].matrix().detach()


def seeded(make):
    """Return `make()` under a fixed seed."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = make()
    return module.eval() if isinstance(module, nn.Module) else module
