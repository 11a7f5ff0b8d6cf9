"""Decompositions rebuild the weight, and the energy rule picks the smallest sufficient rank."""

import pytest
import torch

from xlora_bench.decompositions import energy_rank, ldu, qr, singular_values, svd

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
def test_d6_ldu_of_a_singular_weight_is_finite_and_rebuilds_it(rank):
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


def test_x4_energy_of_the_whole_spectrum_never_asks_for_more_than_full_rank():
    for seed in range(20):
        values = singular_values(gaussian(8, 30, seed=seed))
        assert energy_rank(values, 1.0) <= 8
    assert energy_rank(torch.zeros(4), 0.9) == 1
