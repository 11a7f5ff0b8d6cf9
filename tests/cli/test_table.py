import pytest

from tests.helpers.records import grid, record
from tests.helpers.simulated_sweeps import sweep
from xlora_bench.cli.table import main
from xlora_bench.results.frame import predictions_file
from xlora_bench.runs.record import Record

pytestmark = pytest.mark.slow

STARTS = ("kaiming", "svd_left")


def test_prints_and_writes_the_table_of_a_folder(tmp_path, capsys):
    grid(tmp_path, [{"adapter": "lora", "score": 0.25}, {"adapter": "lu", "score": 0.75}])
    assert main([str(tmp_path)]) == 0
    assert "0.7500 (1)" in capsys.readouterr().out
    assert "| lora | 0.2500 (1) |" in (tmp_path / "reports" / "all" / "table.md").read_text()


def test_filters_by_choice_and_by_number(tmp_path):
    grid(tmp_path, [{"adapter": adapter, "lr": lr} for adapter in ("lora", "lu") for lr in (2e-5, 1e-3)])
    assert main([str(tmp_path), "--filter", "adapter=lora", "optimizer.lr=2e-5"]) == 0
    (folder,) = (tmp_path / "reports").iterdir()
    assert len((folder / "runs.csv").read_text().splitlines()) == 2


def test_says_what_is_wrong(tmp_path, capsys):
    grid(tmp_path, [{}])
    for arguments, message in (
        ([str(tmp_path / "nothing")], "not a results folder"),
        ([str(tmp_path), "--filter", "adaptor=lora"], "adaptor=lora"),
        ([str(tmp_path), "--filter", "adapter=dora"], "no run"),
    ):
        assert main(arguments) == 1
        error = capsys.readouterr().err
        assert message in error
        assert len(error.strip().splitlines()) == 1


def test_lays_runs_out_as_a_paper_does(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("xlora_bench.results.reports.report.write_figures", lambda *_, **__: None)
    runs = [
        {"model": "distilbert", "rank": 2, "init_scheme": start, "seed": seed} for start in STARTS for seed in (0, 1)
    ]
    grid(tmp_path, runs)
    assert main([str(tmp_path), "--paper", "xlora_sst2", "--filter", "model=distilbert"]) == 0
    text = (tmp_path / "reports" / "xlora_sst2_model=distilbert" / "table.md").read_text()
    assert "# X-LoRA on SST-2 (validation accuracy)" in text
    assert "| svd L | 0.5000 ± 0.0000 (2) [0.843] |" in text
    assert "optimizer.lr: published 2e-05, measured 0.001" in text
    for name, message in (("lora", "not one of the papers: asym_roberta_large"), ("quickstart", "no published table")):
        assert main([str(tmp_path), "--paper", name]) == 1
        assert message in capsys.readouterr().err


def test_the_files_go_where_they_are_asked_to_go(tmp_path, monkeypatch):
    monkeypatch.setattr("xlora_bench.results.reports.report.write_figures", lambda *_, **__: None)
    grid(tmp_path / "results", [{"adapter": "lora"}])
    before = sorted((tmp_path / "results").rglob("*"))
    assert main([str(tmp_path / "results"), "--out", str(tmp_path / "out")]) == 0
    assert sorted((tmp_path / "results").rglob("*")) == before
    assert "| lora |" in (tmp_path / "out" / "table.md").read_text()


def test_a_table_reads_each_file_of_a_run_at_most_twice(tmp_path, monkeypatch):
    """Once for the score by halves, once for the comparison by example."""
    frame = sweep(tmp_path, {"lora": 0.0, "lu": 0.1}, seeds=2, examples=20)
    for run in frame.to_dict("records"):
        known = {"choices": {"adapter": run["adapter"]}, "config": {"seed": run["seed"]}, "seed": run["seed"]}
        record(run["run_id"], score=run["score"], **known).write(tmp_path / "runs" / run["run_id"] / "record.json")
    read = []
    opened = predictions_file.ParquetFile
    monkeypatch.setattr(
        predictions_file, "ParquetFile", lambda path, **options: read.append(path) or opened(path, **options)
    )
    plain = predictions_file.pd.read_parquet
    monkeypatch.setattr(predictions_file.pd, "read_parquet", lambda path: read.append(path) or plain(path))
    records = []
    whole = Record.read.__func__
    monkeypatch.setattr(Record, "read", classmethod(lambda cls, path: records.append(path) or whole(cls, path)))
    assert main([str(tmp_path)]) == 0
    assert len(records) == len(set(records)) == len(frame)
    assert len(read) <= 2 * len(frame)
