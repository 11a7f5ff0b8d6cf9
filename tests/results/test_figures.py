from xml.etree import ElementTree

import pytest

from tests.results.records import grid
from xlora_bench.results.report import write_report

FIGURES = {f"score_vs_{what}.{kind}" for what in ("parameters", "rank") for kind in ("png", "svg")}
TABLES = {"table.md", "table.csv", "table.tex", "cells.csv"}


@pytest.fixture
def frame(tmp_path):
    some = [
        {"adapter": adapter, "rank": rank, "seed": seed, "score": 0.5 + seed / 100 + rank / 100}
        for adapter in ("lora", "lu")
        for rank in (2, 8)
        for seed in (0, 1)
    ]
    return grid(tmp_path / "results", some)


def test_a_report_is_complete_and_the_same_twice(frame, tmp_path):
    for name in ("first", "second"):
        write_report(frame, tmp_path / name, title="t")
    assert {path.name for path in (tmp_path / "first").iterdir()} == FIGURES | TABLES
    for name in FIGURES | TABLES:
        first, second = (tmp_path / folder / name for folder in ("first", "second"))
        assert first.read_bytes() == second.read_bytes(), name


def test_the_figures_are_pictures(frame, tmp_path):
    write_report(frame, tmp_path / "r", title="t")
    assert (tmp_path / "r" / "score_vs_rank.png").read_bytes().startswith(b"\x89PNG")
    assert ElementTree.parse(tmp_path / "r" / "score_vs_rank.svg").getroot().tag.endswith("svg")


def test_without_a_numeric_rank_there_is_no_figure_against_it(tmp_path):
    write_report(
        grid(tmp_path / "results", [{"rank": 8}]).assign(**{"adapter.rank": "auto"}),
        tmp_path / "r",
        title="t",
    )
    assert not list((tmp_path / "r").glob("score_vs_rank.*"))
    assert list((tmp_path / "r").glob("score_vs_parameters.*"))


def test_only_bad_cells_still_give_a_table(tmp_path):
    write_report(grid(tmp_path / "results", [{"status": "collapsed"}]), tmp_path / "r", title="t")
    assert {path.name for path in (tmp_path / "r").iterdir()} == TABLES


def test_a_figure_that_fails_is_a_warning(frame, tmp_path, monkeypatch, caplog):
    def broken(*_, **__):
        raise RuntimeError("no fonts")

    monkeypatch.setattr("xlora_bench.results.report.write_figures", broken)
    write_report(frame, tmp_path / "r", title="t")
    assert "no fonts" in caplog.text
    assert (tmp_path / "r" / "table.md").exists()


def test_an_unwritable_folder_is_a_clear_error(frame, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot be written"):
        write_report(frame, tmp_path / "file" / "r", title="t")
