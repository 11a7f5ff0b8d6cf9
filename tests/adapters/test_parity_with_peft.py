"""`lora` is peft's LoRA to the number: logits, gradients, and the loss curve of 20 steps; PiSSA and OLoRA likewise."""

import copy

import peft
import pytest
import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

from tests.helpers.names import part
from xlora_bench import inject
from xlora_bench.adapters import LoRA
from xlora_bench.adapters.init_schemes import KaimingInit
from xlora_bench.inject.targets import Targets

pytestmark = pytest.mark.slow

RANK, ALPHA = 4, 12.0
TARGETS = Targets(modules=["query", "value"])
PREFIX = "base_model.model."


@pytest.fixture
def base():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=60,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=48,
            max_position_embeddings=16,
            num_labels=3,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
        return BertForSequenceClassification(config)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 60, (6, 9), generator=generator)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": torch.arange(6) % 3}


def peft_lora(base: nn.Module, **options: object) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(2)
        config = peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=["query", "value"], **options)
        return peft.get_peft_model(copy.deepcopy(base), config)


def ours(base: nn.Module, scheme: object, **options: object) -> nn.Module:
    adapter = LoRA(rank=RANK, alpha=ALPHA, **options)
    return inject.inject(copy.deepcopy(base), adapter, targets=TARGETS, init_scheme=scheme)


def copy_factors(source: nn.Module, target: nn.Module) -> None:
    """Give our deltas the factors that peft drew."""
    for place, delta in inject.deltas(target).items():
        layer = source.get_submodule(PREFIX + place)
        with torch.no_grad():
            delta.lora_A.copy_(layer.lora_A["default"].weight)
            delta.lora_B.copy_(layer.lora_B["default"].weight)


def losses(model: nn.Module, batch: dict, *, steps: int = 20) -> list[float]:
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-3, weight_decay=0.1)
    curve = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        curve.append(loss.item())
    return curve


@pytest.mark.parametrize("options", [{}, {"use_rslora": True}], ids=["alpha/r", "alpha/sqrt(r)"])
def test_lora_equals_peft_in_logits_gradients_and_20_steps(base, batch, options):
    theirs, mine = peft_lora(base, **options), ours(base, KaimingInit(), **options)
    for layer in theirs.modules():  # B = 0 would hide a wrong scaling
        if isinstance(layer, peft.tuners.lora.Linear):
            nn.init.normal_(layer.lora_B["default"].weight, std=0.1, generator=torch.Generator().manual_seed(3))
    copy_factors(theirs, mine)
    torch.testing.assert_close(mine(**batch).logits, theirs(**batch).logits, rtol=1e-5, atol=1e-7)
    theirs(**batch).loss.backward()
    mine(**batch).loss.backward()
    for place, delta in inject.deltas(mine).items():
        layer = theirs.get_submodule(PREFIX + place)
        torch.testing.assert_close(delta.lora_A.grad, layer.lora_A["default"].weight.grad)
        torch.testing.assert_close(delta.lora_B.grad, layer.lora_B["default"].weight.grad)
    assert losses(mine, batch) == pytest.approx(losses(theirs, batch), rel=1e-5)


@pytest.mark.parametrize(("scheme", "name"), [("svd_both", "pissa"), ("qr", "olora")])
def test_pissa_and_olora_start_and_train_as_in_peft_on_an_untouched_base(base, batch, scheme, name):
    theirs, mine = peft_lora(base, init_lora_weights=name), ours(base, part("init_scheme", scheme))
    for place, delta in inject.deltas(mine).items():
        layer = theirs.get_submodule(PREFIX + place)
        rewritten = layer.base_layer.weight  # peft: W - s B0 A0
        product = layer.scaling["default"] * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
        torch.testing.assert_close(delta.scaling * delta.lora_B @ delta.lora_A, product, rtol=1e-4, atol=1e-6)
        original = base.get_submodule(place).weight
        torch.testing.assert_close(rewritten + product, original, rtol=1e-4, atol=1e-6)
        assert torch.equal(mine.get_submodule(place).weight, original)
    torch.testing.assert_close(mine(**batch).logits, theirs(**batch).logits, rtol=1e-4, atol=1e-6)
    curve = losses(theirs, batch)
    assert losses(mine, batch) == pytest.approx(curve, rel=1e-3)
    assert curve[-1] < curve[0] - 1e-3  # it did train


def test_kaiming_gaussian_starts_have_pefts_spread(base):
    draws = {"kaiming": True, "gaussian": "gaussian"}
    for scheme, name in draws.items():
        theirs, mine = peft_lora(base, init_lora_weights=name), ours(base, part("init_scheme", scheme))
        expected = torch.cat([m.lora_A["default"].weight.flatten() for m in theirs.modules() if hasattr(m, "lora_A")])
        drawn = torch.cat([delta.lora_A.detach().flatten() for delta in inject.deltas(mine).values()])
        assert drawn.std().item() == pytest.approx(expected.std().item(), rel=0.12)
        assert drawn.abs().max().item() == pytest.approx(expected.abs().max().item(), rel=0.35)
