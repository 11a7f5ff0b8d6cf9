"""Haar-random orthonormal rows."""

import torch

from xlora_bench.adapters.init_schemes.orthonormal import orthonormal_rows


def test_no_entry_prefers_a_sign():
    """Q of a QR decomposition alone is not Haar-random: LAPACK makes the first entry of each row negative."""
    draws = torch.stack([orthonormal_rows(3, 8, torch.Generator().manual_seed(seed)) for seed in range(200)])
    torch.testing.assert_close(draws @ draws.mT, torch.eye(3).expand(200, 3, 3), rtol=0, atol=1e-5)
    positive = (draws > 0).float().mean(dim=0)
    assert ((positive - 0.5).abs() < 0.15).all()  # four standard deviations of 200 fair coins
