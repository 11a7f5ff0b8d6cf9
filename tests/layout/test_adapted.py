"""Packed batches are exact with our own adapted layers inside, on every linear layer of the model."""

import pytest
import torch

from tests.layout.test_gather import EXACT, LENGTHS, assert_same_step, both_batches
from tests.names import part
from xlora_bench import inject


@pytest.mark.parametrize("variant", ["lora", "pissa", "lu", "loldu", "dora", "vera"])
@pytest.mark.parametrize("architecture", EXACT)
def test_loss_logits_and_gradients_are_those_of_the_padded_batch(build, tokenizer_of, sentences, architecture, variant):
    model = build(architecture).double()
    adapter = part("adapter", variant, "adapter.rank=4")
    targets, scheme = part("targets", "all_linear"), adapter.default_init()
    model = adapter.apply(model, targets=targets, init_scheme=scheme, seed=0, total_steps=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in inject.adapter_parameters(model):
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    padded, packed = both_batches(model, tokenizer_of(model), sentences(LENGTHS))
    assert_same_step(model, padded, packed)
