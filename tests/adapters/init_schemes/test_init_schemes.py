"""Each init scheme has the factors its formula says, at any scaling."""

import pytest
import torch

from tests.helpers.names import choices, part
from xlora_bench.adapters.init_schemes import OrthonormalInit, SVDInit

RANK = 4


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


W = gaussian(20, 12)
U, S, VH = torch.linalg.svd(W, full_matrices=False)


def start(name, *, scaling=3.0, weight=W, seed=1, **options):
    scheme = part("init_scheme", name, *(f"init_scheme.{key}={value}" for key, value in options.items()))
    return scheme.init_factors(weight, RANK, scaling=scaling, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("name", "left", "right"), [("svd_left", 1, 0), ("svd_right", 0, 1), ("svd_both", 0.5, 0.5)])
def test_singular_values_stand_where_the_name_says_and_the_product_is_the_principal_part(name, left, right):
    for scaling in (1.0, 3.0):
        B, A = start(name, scaling=scaling)
        principal = U[:, :RANK] * S[:RANK] @ VH[:RANK]
        torch.testing.assert_close(scaling * B @ A, principal, rtol=1e-4, atol=1e-5)
        sigma = S[:RANK] / scaling
        torch.testing.assert_close(B.norm(dim=0), sigma**left, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(A.norm(dim=1), sigma**right, rtol=1e-4, atol=1e-5)


def test_nosigma_has_orthonormal_factors_and_minor_the_last_triplets():
    B, A = start("svd_nosigma")
    torch.testing.assert_close(B.T @ B, torch.eye(RANK), rtol=0, atol=1e-5)
    torch.testing.assert_close(A @ A.T, torch.eye(RANK), rtol=0, atol=1e-5)
    B, A = start("svd_minor")
    minor = U[:, -RANK:] * S[-RANK:] @ VH[-RANK:]
    torch.testing.assert_close(3.0 * B @ A, minor, rtol=1e-4, atol=1e-5)


def test_without_division_the_factors_are_those_of_x_lora():
    B, A = start("svd_left", divide_by_scaling="false")
    torch.testing.assert_close(B @ A, U[:, :RANK] * S[:RANK] @ VH[:RANK], rtol=1e-4, atol=1e-5)


def test_qr_and_ldu_take_the_first_columns_and_rows():
    B, A = start("qr")
    torch.testing.assert_close(B.T @ B, torch.eye(RANK), rtol=0, atol=1e-5)
    torch.testing.assert_close(B @ A[:, :RANK], W[:, :RANK], rtol=1e-4, atol=1e-5)  # R is triangular: exact there
    B, A = start("ldu")
    torch.testing.assert_close(B @ A[:, :RANK], W[:, :RANK], rtol=1e-4, atol=1e-5)
    full = part("init_scheme", "ldu").init_factors(W, 12, scaling=1.0, generator=torch.Generator())
    torch.testing.assert_close(full.B @ full.A, W, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["kaiming", "gaussian", "orthonormal"])
@pytest.mark.parametrize("zero", ["A", "B"])
def test_random_starts_leave_one_factor_at_zero_and_draw_from_their_generator(name, zero):
    before = torch.random.get_rng_state()
    first, second, other = (start(name, zero=zero, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not getattr(first, zero).any()
    drawn = "A" if zero == "B" else "B"
    assert torch.equal(getattr(first, drawn), getattr(second, drawn))
    assert not torch.equal(getattr(first, drawn), getattr(other, drawn))
    assert (first.B.shape, first.A.shape) == ((20, RANK), (RANK, 12))


def test_orthonormal_frames_are_orthonormal():
    B, _ = start("orthonormal")
    torch.testing.assert_close(B.T @ B, torch.eye(RANK), rtol=0, atol=1e-5)
    A = OrthonormalInit(zero="B").init_factors(W, RANK, scaling=1, generator=torch.Generator()).A
    torch.testing.assert_close(A @ A.T, torch.eye(RANK), rtol=0, atol=1e-5)


def test_kaiming_fills_its_interval():
    A = start("kaiming", weight=torch.zeros(4, 10_000)).A
    assert A.abs().max().item() == pytest.approx(0.01, rel=1e-3)
    assert A.std().item() == pytest.approx(0.01 / 3**0.5, rel=0.02)


def test_unit_diagonal():
    B, A = start("unit_diagonal", weight=torch.zeros(400, 300))
    assert (B.diagonal() == 1).all()
    assert (A.diagonal() == 1).all()
    off = B[~torch.eye(400, RANK, dtype=torch.bool)]
    assert off.std().item() == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", [name for name in choices("init_scheme") if name != "builtin"])
def test_half_precision_weights_decompose_in_fp32(name, dtype):
    B, A = start(name, weight=W.to(dtype))
    assert B.dtype == A.dtype == torch.float32
    assert torch.isfinite(B @ A).all()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: SVDInit(sigma="leftright"),
            r"`init_scheme.sigma` \(='leftright'\) must be 'left', 'right', 'both' or 'dropped'",
        ),
        (lambda: SVDInit(part="middle"), r"`init_scheme.part` \(='middle'\)"),
        (lambda: OrthonormalInit(zero="C"), r"`init_scheme.zero` \(='C'\)"),
    ],
)
def test_unknown_options_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()
