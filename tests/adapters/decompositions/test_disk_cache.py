"""Decompositions are computed once, to the bit, and a damaged file is computed again."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from xlora_bench.adapters.decompositions import factorizations as decompositions
from xlora_bench.adapters.decompositions.disk_cache import address, cached, disk_cache
from xlora_bench.system.tensor_hash import content_hash

KINDS = ["svd", "qr", "ldu", "singular_values"]
ALGORITHMS = ["triplets", "spectrum", "columns", "pivots"]


@pytest.fixture
def weight():
    return torch.randn(20, 12, generator=torch.Generator().manual_seed(0))


def never(*_args, **_kwargs):
    raise AssertionError("decomposed again")


@pytest.mark.parametrize("kind", KINDS)
def test_a_second_look_reads_the_same_bits_and_computes_nothing(kind, weight, tmp_path, monkeypatch):
    decompose = getattr(decompositions, kind)
    plain = decompose(weight)
    with disk_cache(tmp_path):
        first = decompose(weight)
        for algorithm in ALGORITHMS:
            monkeypatch.setattr(decompositions, algorithm, never)
        second = decompose(weight.clone())
    for parts in (first, second):
        assert type(parts) is type(plain)
        assert all(torch.equal(part, expected) for part, expected in zip(parts, plain, strict=True))


@pytest.mark.parametrize("name", [content_hash, address])
def test_the_name_is_the_content(name, weight):
    other = weight.clone()
    other[0, 0] += 1e-6
    assert name(weight) == name(weight.clone()) != name(other)
    assert len({name(w) for w in (weight, weight.T, weight.bfloat16(), weight.reshape(12, 20))}) == 4


def test_ranks_share_a_file_that_holds_no_more_than_they_need(tmp_path):
    weight = torch.randn(300, 200, generator=torch.Generator().manual_seed(0))
    with disk_cache(tmp_path):
        eight, sixty = (decompositions.svd(weight, rank=rank) for rank in (8, 60))
    assert torch.equal(eight.U, sixty.U[:, :8])
    assert torch.equal(eight.Vh, sixty.Vh[:8])
    (file,) = tmp_path.iterdir()
    assert file.stat().st_size < 4 * 64 * (300 + 200 + 1) + 1000


def test_nothing_is_kept_outside_the_block_and_a_half_file_is_computed_again(weight, tmp_path):
    with disk_cache(tmp_path):
        expected = decompositions.svd(weight)
    decompositions.svd(weight + 1)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:100])
    with disk_cache(tmp_path):
        assert torch.equal(decompositions.svd(weight).S, expected.S)
    assert file.stat().st_size > 100


def test_what_two_want_at_once_is_computed_once(tmp_path):
    computed = []

    def slow():
        computed.append(1)
        time.sleep(0.2)
        return decompositions.QR(torch.ones(2, 2), torch.ones(2, 2))

    def want(_number):
        with disk_cache(tmp_path / "cache"):
            return cached(decompositions.QR, "slow", torch.zeros(3), slow)

    with ThreadPoolExecutor(2) as pool:  # the lock is a file's: to it, threads are as processes
        first, second = pool.map(want, range(2))
    assert len(computed) == 1
    assert torch.equal(first.R, second.R)
    assert [file.suffix for file in (tmp_path / "cache").iterdir()] == [".safetensors"]
