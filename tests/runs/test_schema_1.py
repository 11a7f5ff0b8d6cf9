"""Records of schema 1, in `cells/<id>/record.json`: read by `table` and `diff`, and by nothing else."""

import json

import pandas as pd
import pytest

from tests.helpers.records import record
from xlora_bench.cli.diff import main as diff
from xlora_bench.cli.table import main as table
from xlora_bench.cli.verify import main as verify
from xlora_bench.results.frame.collect import collect
from xlora_bench.results.reproduce.records_archive import find_recorded, read_archive, recorded_in, write_archive
from xlora_bench.results.reproduce.run_artifacts import read_run
from xlora_bench.runs.config_hash import config_hash
from xlora_bench.runs.record import Record, finished, older_records
from xlora_bench.runs.run import Run
from xlora_bench.training.load_run import load_run

OLD, NEW = "a" * 16, "b" * 16
CHOICES = {"adapter": "lora", "init_scheme": "kaiming", "model": "minilm", "task": "sst2"}


def old_record(folder, run_id=OLD, *, status="done", **known):
    """Write a record as version 0.1 did: the run id is `cell`, a completed run is `done`; return its path."""
    status_today = "completed" if status == "done" else status
    content = record(run_id, status=status_today, choices=CHOICES, **known).as_json()
    content["cell"] = content.pop("run_id")
    path = folder / "cells" / run_id / "record.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({**content, "status": status, "schema": 1}, indent=1))
    return path


@pytest.fixture
def results(tmp_path):
    """A results folder with a record of schema 1 and one of today."""
    old_record(tmp_path, score=0.625, seed=1, config={"seed": 1})
    record(NEW, score=0.75, choices=CHOICES, config={"seed": 0}).write(tmp_path / "runs" / NEW / "record.json")
    return tmp_path


def test_it_is_read_under_the_names_of_today(results):
    read = Record.read(results / "cells" / OLD / "record.json")
    assert (read.run_id, read.status, read.schema, read.score) == (OLD, "completed", 1, 0.625)


@pytest.mark.parametrize("status", ["collapsed", "failed"])
def test_other_statuses_are_as_they_were(tmp_path, status):
    assert Record.read(old_record(tmp_path, status=status)).status == status


@pytest.mark.parametrize("change", [{"run_id": OLD}, {"status": "fine"}, {"extra": 1}])
def test_a_file_of_another_shape_is_refused(tmp_path, change):
    path = old_record(tmp_path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ValueError, match="not a record"):
        Record.read(path)


def test_it_is_in_the_table(results, monkeypatch):
    monkeypatch.setattr("xlora_bench.results.reports.report.write_figures", lambda *_, **__: None)
    assert collect(results).set_index("run_id")["score"].to_dict() == {OLD: 0.625, NEW: 0.75}
    assert table([str(results)]) == 0
    report = results / "reports" / "all"
    assert "| lora | 0.6875 ± 0.0884 (2) |" in (report / "table.md").read_text()
    runs = pd.read_csv(report / "runs.csv")
    assert set(runs["run_id"]) == {OLD, NEW}
    assert set(runs["status"]) == {"completed"}


def test_it_is_in_the_table_where_no_run_of_today_is(tmp_path, monkeypatch):
    monkeypatch.setattr("xlora_bench.results.reports.report.write_figures", lambda *_, **__: None)
    old_record(tmp_path, score=0.625)
    assert table([str(tmp_path)]) == 0
    assert "| lora | 0.6250 (1) |" in (tmp_path / "reports" / "all" / "table.md").read_text()


def test_it_is_in_a_diff(results, capsys):
    assert diff([OLD[:4], NEW[:4], "--results-dir", str(results)]) == 0
    out = capsys.readouterr().out
    assert "0.625 (epoch 1)" in out
    assert "+0.125" in out
    assert find_recorded(str(results / "cells" / OLD), location=results).record.run_id == OLD


def one_line(capsys):
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    return line


def test_verify_refuses_it_in_a_line_that_names_the_commit(results, capsys):
    assert set(recorded_in(results)) == {OLD, NEW}
    assert verify([str(results), "--runs", OLD]) == 1
    line = one_line(capsys)
    assert line.startswith(f"error: run {OLD} has a record of schema 1")
    assert "428bd44" in line


def test_verify_refuses_an_archive_of_it(results, tmp_path, capsys):
    path = tmp_path / "records.jsonl.gz"
    write_archive([read_run(results / "cells" / OLD)], path)
    (run,) = read_archive(path).values()
    assert (run.record.run_id, run.record.status, run.record.schema) == (OLD, "completed", 1)
    assert verify([str(path)]) == 1
    assert "428bd44" in one_line(capsys)


def test_load_run_refuses_it_in_a_line_that_names_the_commit(results):
    with pytest.raises(ValueError, match=r"record\.json has schema 1; .* commit 428bd44") as caught:
        load_run(results / "cells" / OLD)
    assert "\n" not in str(caught.value)


def test_it_is_never_reused_and_never_overwritten(tmp_path):
    config = {"seed": 0, "start_from": None}
    run_id = config_hash(config, data="d")
    path = old_record(tmp_path, run_id)
    before = path.read_bytes(), path.stat().st_mtime_ns
    assert finished(path) is None
    run = Run.of(config, choices=CHOICES, data="d", results_dir=tmp_path)
    assert run.id == run_id
    assert run.finished() is None
    run.start(rerun=True).end(record(run_id, score=0.25))
    assert Record.read(run.record_path).score == 0.25
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    with pytest.raises(AssertionError, match="never written"):
        Record.read(path).write(path)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


def test_older_records_are_counted(results):
    assert [path.parent.name for path in older_records(results)] == [OLD]
    assert older_records(results / "nothing") == []
