import pytest

from tests.helpers.records import grid
from xlora_bench.cli.table import main

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path):
    runs = [
        {"adapter": adapter, "seed": seed, "score": score + 0.01 * seed}
        for adapter, score in (("lora", 0.5), ("lu", 0.7))
        for seed in range(3)
    ]
    grid(tmp_path, runs)
    return tmp_path


def text(folder):
    return (folder / "reports" / "all" / "comparison.md").read_text()


def test_a_report_has_its_comparison(folder):
    assert main([str(folder)]) == 0
    assert "compared with **lora**" in text(folder)
    assert "cannot be significant: 3 shared seeds, 6 are needed" in text(folder)
    assert "its predictions.parquet is not there" in text(folder)
    assert "best" in (folder / "reports" / "all" / "comparison.csv").read_text().splitlines()[0]


def test_the_reference_can_be_named(folder):
    assert main([str(folder), "--reference", "adapter=lu"]) == 0
    assert "compared with **lu**" in text(folder)


@pytest.mark.parametrize(
    ("reference", "message"), [("adapter=dora", "must fit exactly one method"), ("lora", "must be KEY=VALUE")]
)
def test_a_reference_that_is_not_there_is_named(folder, capsys, reference, message):
    assert main([str(folder), "--reference", reference]) == 1
    assert message in capsys.readouterr().err


def test_the_table_ends_with_a_sentence_per_column(tmp_path, capsys):
    runs = [
        {"adapter": adapter, "task": task, "seed": seed, "score": score}
        for task, best in (("rte", "lora"), ("sst2", "lu"))
        for adapter in ("lora", "lu")
        for seed in range(6)
        for score in [0.5 + 0.1 * (adapter == best) + 0.01 * seed]
    ]
    grid(tmp_path, runs)
    assert main([str(tmp_path)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "lora is significantly better than every other method (largest p = 0.0312)" in shown  # 2 / 2^6
    first, second = (f"{task}: {name} is sig" for task, name in (("rte", "lora"), ("sst2", "lu")))
    assert 0 < shown.index(first) < shown.index(second) < shown.index("Files: ")
    assert first not in (tmp_path / "reports" / "all" / "table.md").read_text()
