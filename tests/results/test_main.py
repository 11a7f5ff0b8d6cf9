from tests.results.records import grid
from xlora_bench.results.__main__ import main


def test_prints_and_writes_the_table_of_a_folder(tmp_path, capsys):
    grid(tmp_path, [{"adapter": "lora", "score": 0.25}, {"adapter": "lu", "score": 0.75}])
    assert main([str(tmp_path)]) == 0
    assert "0.7500 (1)" in capsys.readouterr().out
    assert "| lora | 0.2500 (1) |" in (tmp_path / "reports" / "all" / "table.md").read_text()


def test_filters_by_choice_and_by_number(tmp_path):
    grid(tmp_path, [{"adapter": adapter, "lr": lr} for adapter in ("lora", "lu") for lr in (2e-5, 1e-3)])
    assert main([str(tmp_path), "--filter", "adapter=lora", "optimizer.lr=2e-5"]) == 0
    (folder,) = (tmp_path / "reports").iterdir()
    assert len((folder / "cells.csv").read_text().splitlines()) == 2


def test_says_what_is_wrong(tmp_path, capsys):
    grid(tmp_path, [{}])
    for arguments, message in (
        ([str(tmp_path / "nothing")], "not a results folder"),
        ([str(tmp_path), "--filter", "adaptor=lora"], "adaptor=lora"),
        ([str(tmp_path), "--filter", "adapter=dora"], "no cell"),
    ):
        assert main(arguments) == 1
        error = capsys.readouterr().err
        assert message in error
        assert len(error.strip().splitlines()) == 1
