"""Packed batches are exact with our own adapted layers inside, on every linear layer of the model."""

import pytest
import torch

from tests.helpers.names import part
from tests.models.packed.test_forward import EXACT, LENGTHS, SDPA, assert_same_step, both_batches
from xlora_bench import inject
from xlora_bench.inject.methods import as_method


@pytest.mark.parametrize("variant", ["lora", "pissa", "lu", "loldu", "dora", "vera"])
@pytest.mark.parametrize(
    ("architecture", "unpadded"),
    [(name, False) for name in EXACT] + [(name, True) for name in SDPA if name != "electra"],
)
def test_loss_logits_and_gradients_are_those_of_the_padded_batch(  # noqa: PLR0917
    build, tokenizer_of, sentences, architecture, variant, unpadded
):
    model = build(architecture)
    padded, packed = both_batches(model, tokenizer_of(model), sentences(LENGTHS), unpadded=unpadded)
    model = model.double()
    adapter = part("adapter", variant, "adapter.rank=4")
    targets, scheme = part("targets", "all_linear"), adapter.default_init()
    model = as_method(adapter).apply(model, targets=targets, init_scheme=scheme, seed=0, total_steps=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in inject.adapter_parameters(model):
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    assert_same_step(model, padded, packed)
