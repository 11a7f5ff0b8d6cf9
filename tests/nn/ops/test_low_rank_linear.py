"""The fused layer against autograd on the written-out formula, in both orders of contraction."""

import itertools

import pytest
import torch
from torch.nn import functional as F

from xlora_bench.nn.ops.low_rank_linear import DenseLinear, LowRankLinear, dense_is_cheaper, low_rank_linear, rescaled

OUT, INNER, RANK, SCALING = 5, 7, 3, 1.7


def tensors(trained):
    torch.manual_seed(0)
    shapes = {"x": (4, INNER), "weight": (OUT, INNER), "bias": (OUT,), "B": (OUT, RANK), "A": (RANK, INNER)}
    made = {name: torch.randn(shape, dtype=torch.double) for name, shape in shapes.items()}
    for name in trained:
        made[name].requires_grad_(True)
    return made


def gradients(output, parts, trained):
    generator = torch.Generator().manual_seed(1)
    output.backward(torch.randn(output.shape, dtype=torch.double, generator=generator))
    return [parts[name].grad for name in trained]


@pytest.mark.parametrize("function", [LowRankLinear, DenseLinear])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "trained", [names for count in (1, 2, 3) for names in itertools.combinations(("x", "B", "A"), count)]
)
def test_output_and_gradients_are_those_of_the_formula(function, bias, trained):
    ours, plain = tensors(trained), tensors(trained)
    b = ours["bias"] if bias else None
    y = function.apply(ours["x"], ours["weight"], b, ours["B"], ours["A"], SCALING)
    expected = F.linear(plain["x"], plain["weight"] + SCALING * plain["B"] @ plain["A"], b)
    torch.testing.assert_close(y, expected)
    for mine, theirs in zip(gradients(y, ours, trained), gradients(expected, plain, trained), strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("trained", [("output",), ("scale",), ("output", "scale")])
def test_rescaled_rows_are_those_of_the_formula(bias, trained):
    torch.manual_seed(0)
    made = {
        "output": torch.randn(2, 3, OUT).double(),
        "scale": torch.rand(OUT).double(),
        "bias": torch.ones(OUT).double(),
    }
    ours, plain = ({name: value.clone() for name, value in made.items()} for _ in range(2))
    for parts, name in itertools.product((ours, plain), trained):
        parts[name].requires_grad_(True)
    b = made["bias"] if bias else 0
    z = rescaled(ours["output"], made["bias"] if bias else None, ours["scale"])
    expected = plain["scale"] * (plain["output"] - b) + b
    torch.testing.assert_close(z, expected)
    for mine, theirs in zip(gradients(z, ours, trained), gradients(expected, plain, trained), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_rescaling_by_one_changes_no_bit():
    output, bias = torch.randn(4, OUT), torch.randn(OUT)
    assert torch.equal(rescaled(output, bias, torch.ones(OUT)), output)


def test_leading_dimensions_stay():
    parts = tensors(("B",))
    x = torch.randn(2, 3, INNER, dtype=torch.double)
    y = low_rank_linear(x, parts["weight"], None, parts["B"], parts["A"], scaling=1.0)
    torch.testing.assert_close(y, x @ (parts["weight"] + parts["B"] @ parts["A"]).T)


@pytest.mark.parametrize(
    ("rows", "rank", "trained", "dense"),
    [
        (448, 8, ("B", "A"), False),  # LoRA on packed SST-2
        (448, 64, ("A",), False),
        (448, 384, ("A",), True),  # LoLDU at full rank
        (8, 384, ("A",), False),  # a few tokens do not pay for a matrix
        (10_000, 8, (), True),  # no gradient of a factor: one sum, then the frozen product alone
    ],
)
def test_the_cheaper_order_is_chosen_by_shape(rows, rank, trained, dense):
    B, A = torch.zeros(384, rank), torch.zeros(rank, 384)
    for name in trained:
        {"B": B, "A": A}[name].requires_grad_(True)
    assert dense_is_cheaper(rows, B, A) is dense


@pytest.mark.parametrize(("rows", "dense"), [(100, False), (1000, True)])
def test_without_gradients_the_forward_alone_decides(rows, dense):
    B, A = torch.zeros(384, 8, requires_grad=True), torch.zeros(8, 384, requires_grad=True)
    assert not dense_is_cheaper(rows, B, A)
    with torch.no_grad():
        assert dense_is_cheaper(rows, B, A) is dense
