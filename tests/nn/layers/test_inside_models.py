"""Adapted layers inside Hugging Face models: GPT-2's Conv1D, gradient checkpointing, copies."""

import copy
import pickle

import pytest
import torch
from transformers import GPT2Config, GPT2ForSequenceClassification

from tests.helpers.adapted import perturbed
from tests.helpers.names import part
from xlora_bench import inject
from xlora_bench.inject.targets import Targets
from xlora_bench.nn.layers import AdaptedConv1D, AdaptedEmbedding

pytestmark = pytest.mark.slow

IDS = torch.tensor([[1, 3, 5, 7], [2, 4, 6, 8]])
EVERYWHERE = Targets(modules=["wte", "wpe", "c_attn", "c_proj", "c_fc"])


def gpt2():
    torch.manual_seed(0)
    sizes = {"vocab_size": 20, "n_positions": 8, "n_embd": 16, "n_layer": 2, "n_head": 2}
    config = GPT2Config(**sizes, pad_token_id=0, resid_pdrop=0.0, attn_pdrop=0.0, embd_pdrop=0.0)
    return GPT2ForSequenceClassification(config)


def adapted(targets=EVERYWHERE):
    method = part("adapter", "lora", "adapter.rank=2")
    return perturbed(inject.inject(gpt2(), method, targets=targets, init_scheme=part("init_scheme", "svd_left")))


def gradients(model):
    model(IDS, labels=torch.tensor([0, 1])).loss.backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_changes_no_gradient(reentrant):
    expected = gradients(adapted().train())
    model = adapted().train()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    actual = gradients(model)
    assert actual.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(actual[name], gradient, msg=name)


@pytest.mark.parametrize(("targets", "endings"), [("attention_qv", {"c_attn"}), ("attention", {"c_attn", "c_proj"})])
def test_gpt2_has_targets(targets, endings):
    model = adapted(part("targets", targets))
    paths = [path for path, _ in inject.adapted_layers(model)]
    assert {path.rsplit(".", 1)[-1] for path in paths} == endings
    assert all(".attn." in path for path in paths)


def test_all_linear_takes_conv1d_and_leaves_embeddings():
    model = adapted(part("targets", "all_linear"))
    layers = dict(inject.adapted_layers(model))
    assert len(layers) == 8
    assert all(isinstance(layer, AdaptedConv1D) for layer in layers.values())
    assert isinstance(adapted().transformer.wte, AdaptedEmbedding)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_are_independent(copied):
    model = adapted().eval()
    twin = copied(model)
    expected = model(IDS).logits
    assert torch.equal(twin(IDS).logits, expected)
    perturbed(twin)
    assert torch.equal(model(IDS).logits, expected)
    assert not torch.equal(twin(IDS).logits, expected)
    plain = gpt2().state_dict()  # loads through the hook of the copy, not of the original
    twin.load_state_dict({**twin.state_dict(), **{name: tensor + 1.0 for name, tensor in plain.items()}}, strict=False)
    assert torch.equal(model(IDS).logits, expected)


def test_a_copy_needs_no_pickle():
    model, twin = adapted().eval(), adapted().eval()
    perturbed(twin)
    inject.load_adapter_state_dict(twin, inject.adapter_state_dict(model))
    assert torch.equal(twin(IDS).logits, model(IDS).logits)
