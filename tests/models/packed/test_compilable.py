"""`torch.compile` traces packed and padded forwards of every variant into one graph with the same numbers."""

import copy
import warnings

import pytest
import torch

from tests.helpers.names import part
from tests.models.packed.test_forward import both_batches
from tests.test_conformance import VARIANTS
from xlora_bench import inject
from xlora_bench.data.packing import UnpaddedCollator
from xlora_bench.inject.methods import as_method
from xlora_bench.models.packed import CompilableForward, forward

pytestmark = pytest.mark.slow
LENGTHS = [7, 30, 1, 45, 12]


def adapted(model, variant):
    adapter = part("adapter", variant, "adapter.rank=4")
    targets, scheme = part("targets", "attention_qv"), adapter.default_init()
    model = as_method(adapter).apply(model.double(), targets=targets, init_scheme=scheme, seed=0, total_steps=1)
    with torch.no_grad():
        for parameter in inject.adapter_parameters(model):
            parameter.add_(torch.linspace(-0.05, 0.05, parameter.numel(), dtype=parameter.dtype).view_as(parameter))
    return model.train()


def logits_and_gradients(module, compute):
    module.zero_grad()
    logits = compute()
    logits.square().sum().backward()
    return logits.detach(), [weight.grad.clone() for weight in module.parameters() if weight.grad is not None]


@pytest.mark.parametrize(
    ("architecture", "variant"),
    [("bert", variant) for variant in VARIANTS] + [("roberta", "lora"), ("electra", "dora"), ("deberta-v3", "lora")],
)
def test_one_graph_and_the_numbers_of_the_eager_forward(build, tokenizer_of, sentences, architecture, variant):
    torch.compiler.reset()
    model = adapted(build(architecture), variant)
    traced = CompilableForward(copy.deepcopy(model))
    compiled = torch.compile(traced, backend="aot_eager", fullgraph=True)
    _, packed = both_batches(model, tokenizer_of(model), sentences(LENGTHS))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logits, gradients = logits_and_gradients(traced, lambda: compiled(packed))
    expected, expected_gradients = logits_and_gradients(model, lambda: forward(model, packed))
    assert (logits - expected).abs().max() <= 1e-9 * expected.abs().max()
    assert len(gradients) == len(expected_gradients) > 0
    largest = max(gradient.norm() for gradient in expected_gradients)
    for gradient, other in zip(gradients, expected_gradients, strict=True):
        assert (gradient - other).norm() <= 1e-9 * max(other.norm(), 1e-2 * largest)


def test_batches_of_other_lengths_and_padded_ones(build, tokenizer_of, sentences):
    torch.compiler.reset()
    model = adapted(build("bert"), "lora")
    compiled = torch.compile(CompilableForward(copy.deepcopy(model)), backend="eager", fullgraph=True)
    for lengths in (LENGTHS, [9, 3, 62, 20, 5, 18, 2]):
        for batch in both_batches(model, tokenizer_of(model), sentences(lengths)):
            expected = forward(model, batch)
            assert (compiled(batch) - expected).abs().max() <= 1e-9 * expected.abs().max()


def test_without_packed_batches_and_after_removal_the_model_is_as_before(build, tokenizer_of, sentences):
    model = build("deberta-v3").eval()
    padded, packed = both_batches(model, tokenizer_of(model), sentences([7, 30, 1]))
    expected = forward(model, padded)
    traced = CompilableForward(model)
    assert torch.allclose(traced(packed), expected, atol=1e-5)
    assert torch.equal(model(**{name: padded[name] for name in ("input_ids", "attention_mask")}).logits, expected)
    traced.remove()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_batches_without_padding_are_refused(build, tokenizer_of, sentences):
    model = build("bert")
    batch = UnpaddedCollator(tokenizer_of(model))(sentences([7, 30]))
    with pytest.raises(ValueError, match=r"batches without padding \(`rows`\) cannot be compiled; use `PackedColl"):
        CompilableForward(model)(batch)
