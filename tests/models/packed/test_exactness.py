from functools import partial

import pytest
import torch

from tests.helpers.instruction_sets import needs_bf16_attention
from xlora_bench.data.collators import PaddedCollator
from xlora_bench.data.packing import PackedCollator
from xlora_bench.models.packed import verify
from xlora_bench.models.packed.structure import position_offset

LENGTHS = [7, 30, 1, 45, 12, 80, 3]


@pytest.fixture
def reason(tokenizer_of, sentences):
    def reason(model, **settings):
        tokenizer = tokenizer_of(model)
        offset = settings.pop("position_offset", position_offset(model))
        packed = PackedCollator(tokenizer, position_offset=offset)
        return verify(model, examples=sentences(LENGTHS), padded=PaddedCollator(tokenizer), packed=packed, **settings)

    return reason


def test_exact_models_have_no_reason_against(build, reason):
    assert reason(build("bert", dropout=0.5).train()) is None


@needs_bf16_attention
def test_sixteen_bits_are_exact_too(build, reason):
    assert reason(build("bert").bfloat16()) is None
    assert "off by" in reason(build("roberta").bfloat16(), position_offset=0)


def test_the_position_offset_of_roberta_is_needed_and_derived(build, reason):
    model = build("roberta")
    assert position_offset(model) == 2
    assert reason(model) is None
    assert "off by" in reason(model, position_offset=0)


@pytest.mark.parametrize(("architecture", "why"), [("gpt2", "does not run"), ("modernbert", "window")])
def test_models_that_cannot_be_packed_say_why(build, reason, architecture, why):
    assert why in reason(build(architecture))


def test_a_constant_head_proves_nothing(build, reason):
    model = build("bert")
    torch.nn.init.zeros_(model.classifier.weight)
    assert "same for every sentence" in reason(model)


def test_a_large_bias_hides_nothing(build, reason):
    model = build("roberta")
    torch.nn.init.constant_(model.classifier.out_proj.bias, 1e3)
    assert "off by" in reason(model, position_offset=0)


@pytest.mark.parametrize("architecture", ["bert", "gpt2"])
def test_modes_generators_and_gradients_are_left_alone(build, reason, architecture):
    model = build(architecture, dropout=0.5).train()
    frozen = next(module for module in model.modules() if isinstance(module, torch.nn.LayerNorm)).eval()
    modes = [module.training for module in model.modules()]
    state = torch.get_rng_state()
    reason(model)
    assert [module.training for module in model.modules()] == modes
    assert not frozen.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(weight.grad is None for weight in model.parameters())


def off_where(model, condition):
    """Let the encoder of `model` compute something else for packed rows where `condition` holds."""
    attention = model.bert.encoder.layer[0].attention.self.value
    attention.register_forward_hook(lambda _, __, output: output * 1.5 if condition() else output)
    return model


def test_the_check_computes_as_training_does(build, reason):
    assert "off by" in reason(off_where(build("bert"), torch.is_grad_enabled))
    tuned = partial(torch.autocast, "cpu", torch.bfloat16)
    packed = []
    model = off_where(build("bert"), lambda: packed[-1] and torch.is_autocast_enabled("cpu"))
    model.register_forward_pre_hook(lambda _, __, options: packed.append("position_ids" in options), with_kwargs=True)
    assert reason(model) is None
    assert "at most 1e-01 is rounding" in reason(model, precision=tuned)
