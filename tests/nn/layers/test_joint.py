"""Layers of one input in one function, against each layer on its own."""

import pytest
import torch
from torch import nn

from tests.helpers.adapted import adapted as with_update
from xlora_bench.nn.layers.joint import JointLinear, joint_linear

ROWS, INNER = 12, 24


def layers(*adapted, **options):
    """Three layers of one input, those at the positions `adapted` with an update, all numbers random, in fp64."""
    torch.manual_seed(0)
    made = [nn.Linear(INNER, out, bias=out != 24).requires_grad_(False) for out in (24, 16, 20)]
    made = [with_update(layer, **options) if index in adapted else layer for index, layer in enumerate(made)]
    for layer in made:
        for weight in layer.parameters():
            nn.init.normal_(weight)
    return [layer.double().train() for layer in made]


def step(outputs, made, x):
    """Outputs, gradient of the input and gradients of all that trains."""
    generator = torch.Generator().manual_seed(1)
    loss = sum((y * torch.randn(y.shape, dtype=y.dtype, generator=generator)).sum() for y in outputs)
    weights = [weight for layer in made for weight in layer.parameters() if weight.requires_grad]
    wanted = [*weights, *([x] if x.requires_grad else [])]
    gradients = torch.autograd.grad(loss, wanted, allow_unused=True)
    return [*(y.detach() for y in outputs), *(each for each in gradients if each is not None)]


def is_joint(outputs):
    return {type(y.grad_fn.next_functions[0][0]).__name__ for y in outputs} == {JointLinear.__name__ + "Backward"}


@pytest.mark.parametrize("adapted", [(0, 2), (0, 1, 2), (1,)])
@pytest.mark.parametrize("needs_x", [True, False])
def test_outputs_and_gradients_are_those_of_the_layers(adapted, needs_x):
    made = layers(*adapted)
    x = torch.randn(3, ROWS // 3, INNER, dtype=torch.double, requires_grad=needs_x)
    joint = joint_linear(x, made)
    assert is_joint(joint)
    for ours, theirs in zip(step(joint, made, x), step([layer(x) for layer in made], made, x), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_factors_that_are_frozen_get_no_gradient():
    made = layers(0, 2)
    made[0].deltas["default"].lora_A.requires_grad_(False)
    made[2].deltas["default"].lora_B.requires_grad_(False)
    x = torch.randn(ROWS, INNER, dtype=torch.double)
    for ours, theirs in zip(
        step(joint_linear(x, made), made, x), step([layer(x) for layer in made], made, x), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def hooked(made, seen):
    made[0].register_forward_hook(lambda *_: seen.append("hook"))


def hooked_backward(made, seen):
    made[0].base_layer.register_full_backward_hook(lambda *_: seen.append("hook"))


def hooked_before_backward(made, seen):
    made[1].register_full_backward_pre_hook(lambda *_: seen.append("hook"))


def replaced_forward(made, seen):
    forward = made[2].base_layer.forward
    made[2].base_layer.forward = lambda x: seen.append("forward") or forward(x)


def trainable(made, seen):
    made[1].weight.requires_grad_(True)


def inactive(made, seen):
    made[2].active = {}


def all_frozen(made, seen):
    made[0], made[2] = made[0].base_layer, made[2].base_layer


def another_class(made, seen):
    class Shouting(nn.Linear):
        def forward(self, x):
            seen.append("forward")
            return super().forward(x)

    made[1].__class__ = Shouting


WATCHED = [hooked, hooked_backward, hooked_before_backward, replaced_forward, another_class]


@pytest.mark.parametrize("change", [*WATCHED, trainable, inactive, all_frozen])
def test_layers_that_do_more_run_on_their_own(change):
    made, seen = layers(0, 2), []
    change(made, seen)
    x = torch.randn(ROWS, INNER, dtype=torch.double, requires_grad=True)
    joint = joint_linear(x, made)
    assert not is_joint(joint)
    torch.autograd.grad(sum(y.sum() for y in joint), x, retain_graph=True)
    assert len(seen) == (change in WATCHED)
    for ours, theirs in zip(step(joint, made, x), step([layer(x) for layer in made], made, x), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("options", [{"adapter": "dora"}, {"dropout": 0.5}])
def test_updates_that_are_more_than_factors_run_on_their_own(options):
    made = layers(0, 2, **options)
    x = torch.randn(ROWS, INNER, dtype=torch.double, requires_grad=True)
    assert not is_joint(joint_linear(x, made))


@pytest.mark.parametrize("rows", [12, 500])
def test_factors_are_made_once_per_forward(rows, monkeypatch):
    made, calls = layers(0, 2), []
    kind = type(made[0].deltas["default"])
    factors = kind.factors
    monkeypatch.setattr(kind, "factors", lambda delta: calls.append(delta) or factors(delta))
    with torch.no_grad():  # many rows: by summed weights
        joint_linear(torch.randn(rows, INNER, dtype=torch.double), made)
    assert calls == [made[0].deltas["default"], made[2].deltas["default"]]


def test_without_gradients_a_weight_is_summed_where_that_is_cheaper():
    made = layers(0, 2)
    for rows in (2, 500):
        x = torch.randn(rows, INNER, dtype=torch.double)
        expected = [layer(x).detach() for layer in made]
        with torch.no_grad():
            for ours, theirs in zip(joint_linear(x, made), expected, strict=True):
                torch.testing.assert_close(ours, theirs)
