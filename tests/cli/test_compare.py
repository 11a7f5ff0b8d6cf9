"""`compare`: the comparison of a folder as text."""

import pytest

from tests.helpers.records import grid
from xlora_bench.cli.compare import main

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path):
    runs = [
        {"adapter": adapter, "init_scheme": init, "seed": seed, "score": score + seed / 100}
        for adapter, init, score in (("lora", "kaiming", 0.5), ("lora", "svd_left", 0.6), ("lu", "kaiming", 0.7))
        for seed in range(6)
    ]
    grid(tmp_path, runs)
    return tmp_path


def test_every_method_against_the_usual_reference(folder, capsys):
    before = sorted(folder.rglob("*"))
    assert main([str(folder)]) == 0
    out = capsys.readouterr().out
    assert "All runs: against lora · kaiming" in out
    (line,) = [line for line in out.splitlines() if line.startswith("│ lu · kaiming")]
    assert "+0.2000 [+0.2000, +0.2000]" in line
    assert "0.0312" in line  # 2 / 2^6
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("words", [["lora · svd_left"], ["svd_left"], ["init_scheme=svd_left"]])
def test_another_reference(folder, capsys, words):
    assert main([str(folder), "--reference", *words]) == 0
    out = capsys.readouterr().out
    assert "All runs: against lora · svd_left" in out
    assert "-0.1000 [-0.1000, -0.1000]" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--reference", "lora"],
            "`--reference lora` must name one method of the table, it fits 2; the methods are lora",
        ),
        (["--reference", "adapter=dora"], "must fit exactly one method of the table, fits 0"),
        (["--filter", "adapter=lu"], "are of one method; a comparison needs two or more"),
        (["--filter", "adapter=dora"], "there is no recorded run to compare"),
    ],
)
def test_says_what_is_wrong(folder, capsys, words, message):
    assert main([str(folder), *words]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
