"""Decompositions are computed once, to the bit, and a damaged file is computed again."""

import pytest
import torch

from xlora_bench import decompositions
from xlora_bench.remember import content_hash, remembered_in

KINDS = ["svd", "qr", "ldu"]


@pytest.fixture
def weight():
    return torch.randn(20, 12, generator=torch.Generator().manual_seed(0))


def never(*_args, **_kwargs):
    raise AssertionError("decomposed again")


@pytest.mark.parametrize("kind", KINDS)
def test_a_second_look_reads_the_same_bits_and_computes_nothing(kind, weight, tmp_path, monkeypatch):
    decompose = getattr(decompositions, kind)
    plain = decompose(weight)
    with remembered_in(tmp_path):
        first = decompose(weight)
        for algorithm in ("svd", "qr", "lu"):
            monkeypatch.setattr(torch.linalg, algorithm, never)
        second = decompose(weight.clone())
    for parts in (first, second):
        assert type(parts) is type(plain)
        assert all(torch.equal(part, expected) for part, expected in zip(parts, plain, strict=True))


def test_the_name_is_the_content(weight):
    other = weight.clone()
    other[0, 0] += 1e-6
    assert content_hash(weight) == content_hash(weight.clone()) != content_hash(other)
    assert len({content_hash(w) for w in (weight, weight.T, weight.bfloat16(), weight.reshape(12, 20))}) == 4


def test_nothing_is_kept_outside_the_block_and_a_half_file_is_computed_again(weight, tmp_path):
    with remembered_in(tmp_path):
        expected = decompositions.svd(weight)
    decompositions.svd(weight + 1)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:100])
    with remembered_in(tmp_path):
        assert torch.equal(decompositions.svd(weight).S, expected.S)
    assert file.stat().st_size > 100
