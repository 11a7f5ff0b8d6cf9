"""Decompositions rebuild the weight, and the energy rule picks the smallest sufficient rank."""

import math

import pytest
import torch

from xlora_bench.adapters.decompositions.factorizations import energy_rank, ldu, qr, singular_values, svd, terms

SHAPES = [(24, 24), (40, 24), (24, 40), (1, 5)]


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def rebuilt(parts):
    return parts.L * parts.D @ parts.U


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_factors_rebuild_the_weight_in_fp32_or_better(shape, dtype):
    weight = gaussian(*shape).to(dtype)
    U, S, Vh = svd(weight)
    Q, R = qr(weight)
    parts = ldu(weight)
    for product in (U * S @ Vh, Q @ R, rebuilt(parts)[torch.argsort(parts.permutation)]):
        assert product.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        torch.testing.assert_close(product, weight.to(product.dtype), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(singular_values(weight), S)


@pytest.mark.parametrize("shape", SHAPES)
def test_ldu_factors_are_triangular_with_unit_diagonals(shape):
    _, L, D, U = ldu(gaussian(*shape))
    torch.testing.assert_close(L, L.tril())
    torch.testing.assert_close(U, U.triu())
    torch.testing.assert_close(L.diagonal(), torch.ones(len(D)))
    torch.testing.assert_close(U.diagonal(), torch.ones(len(D)))


@pytest.mark.parametrize("rank", [0, 1, 5])
def test_ldu_of_a_singular_weight_is_finite_and_rebuilds_it(rank):
    weight = gaussian(12, rank) @ gaussian(rank, 12, seed=1)
    parts = ldu(weight)
    assert all(torch.isfinite(part).all() for part in parts)
    assert parts.U.abs().max() < 1e4
    torch.testing.assert_close(rebuilt(parts), weight[parts.permutation], rtol=1e-4, atol=1e-4)


def test_energy_rank_is_the_smallest_that_holds_the_share():
    values = torch.tensor([4.0, 3.0, 2.0, 1.0])  # energies 16 9 4 1 of 30
    assert [energy_rank(values, share) for share in (0.5, 16 / 30, 0.6, 25 / 30, 0.9, 29 / 30, 0.99)] == [
        1,
        1,
        2,
        2,
        3,
        3,
        4,
    ]


def test_energy_of_the_whole_spectrum_never_asks_for_more_than_full_rank():
    for seed in range(20):
        values = singular_values(gaussian(8, 30, seed=seed))
        assert energy_rank(values, 1.0) <= 8
    assert energy_rank(torch.zeros(4), 0.9) == 1


def weight_like(*, condition, shape=(300, 200)):
    """A weight in fp32 with singular values from 1 down to `1 / condition`, evenly in their logarithm."""
    full = min(shape)
    U, V = (torch.linalg.qr(gaussian(size, full, seed=size).double()).Q for size in shape)
    return (U * torch.logspace(0, -math.log10(condition), full, dtype=torch.float64) @ V.T).float()


@pytest.mark.parametrize("part", ["principal", "minor"])
@pytest.mark.parametrize("shape", [(300, 200), (200, 300), (200, 200)])
@pytest.mark.parametrize("condition", [10.0, 1e3, 1e6, 1e12])
def test_singular_triplets_of_a_rank_are_those_of_fp64_to_fp32_rounding(part, shape, condition):
    weight = weight_like(condition=condition, shape=shape)
    U, S, Vh = svd(weight, rank=20, part=part)
    reference = torch.linalg.svd(weight.double(), full_matrices=False)
    chosen = slice(0, 20) if part == "principal" else slice(180, 200)
    expected = reference.U[:, chosen] * reference.S[chosen] @ reference.Vh[chosen]
    assert (U.double() * S @ Vh.double() - expected).abs().max() < 1e-6 * reference.S[0]
    torch.testing.assert_close(S.double(), reference.S[chosen], rtol=1e-6, atol=1e-7 * reference.S[0].item())
    for rows in (U.T.double(), Vh.double()):
        assert (rows @ rows.T - torch.eye(20)).abs().max() < 1e-6
    largest = U.gather(0, U.abs().argmax(dim=0, keepdim=True))
    assert (largest > 0).all()


@pytest.mark.parametrize("shape", [(300, 200), (200, 300)])
def test_a_rank_takes_the_leading_part_of_qr_and_ldu(shape):
    weight = gaussian(*shape)
    Q, R = qr(weight, rank=20)
    expected = torch.linalg.qr(weight.double())
    torch.testing.assert_close(Q.double(), expected.Q[:, :20], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(R.double(), expected.R[:20], rtol=1e-5, atol=1e-5)
    assert torch.equal(R, R.triu())
    assert all(torch.equal(part, whole) for part, whole in zip(ldu(weight, rank=20), cut(ldu(weight), 20), strict=True))


def cut(parts, rank):
    return parts.permutation, parts.L[:, :rank], parts.D[:rank], parts.U[:rank]


def test_how_many_terms_are_computed_depends_on_the_rank_alone():
    assert [terms(rank, 768) for rank in (1, 64, 65, 200, 256, 257, 768, None)] == [
        64,
        64,
        128,
        256,
        256,
        768,
        768,
        768,
    ]
    assert [terms(rank, 100) for rank in (1, 100)] == [100, 100]


@pytest.mark.parametrize("decompose", [svd, qr, ldu])
def test_factors_are_the_same_bits_whatever_the_threads_and_the_place_in_memory(decompose):
    weight, threads = gaussian(300, 200), torch.get_num_threads()
    moved = torch.empty(300 * 200 + 3)[3:].view(300, 200).copy_(weight)
    expected = decompose(weight, rank=20)
    try:
        torch.set_num_threads(2 if threads == 1 else 1)
        again = decompose(moved, rank=20)
        assert torch.get_num_threads() != threads
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(part, other) for part, other in zip(again, expected, strict=True))


def test_all_singular_values_are_exact_to_fp32_rounding():
    for condition in (10.0, 1e6):
        weight = weight_like(condition=condition)
        exact = torch.linalg.svdvals(weight.double())
        assert (singular_values(weight).double() - exact).abs().max() < 1e-7 * exact[0]
