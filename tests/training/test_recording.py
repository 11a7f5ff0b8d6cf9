"""What is recorded of a run that fails."""

import pytest

from xlora_bench.runs.claim import Claim
from xlora_bench.runs.record import Record
from xlora_bench.runs.run import Run
from xlora_bench.training.caches import Caches
from xlora_bench.training.recording import record_of
from xlora_bench.training.resolve import RunRequest
from xlora_bench.training.train import train_run


def test_a_failed_rerun_leaves_the_finished_record_and_a_failed_first_run_is_recorded(tmp_path, monkeypatch):
    def fails(*_args, **_options):
        raise RuntimeError("out of memory")

    monkeypatch.setattr("xlora_bench.training.train.prepare", fails)
    mine = Run.of({"seed": 0, "rerun": True, "trainer": {}}, choices={}, data="d", results_dir=tmp_path)
    mine.folder.mkdir(parents=True)
    request = RunRequest(run=mine, parts={}, corpus=None, caches=Caches())
    claim = Claim(mine.claim).wait()
    with pytest.raises(RuntimeError):
        train_run(request, claim)
    assert Record.read(mine.record_path).status == "failed"
    score = {"accuracy": 0.5, "epoch": 1}
    outcome = {
        "status": "completed",
        "metrics": {"headline": "accuracy", "history": [score], "best": score, "last": score},
    }
    mine.start(rerun=True).end(record_of(request, outcome, started="2026-01-01T00:00:00+00:00"))
    with pytest.raises(RuntimeError):
        train_run(request, claim)
    assert Record.read(mine.record_path).status == "completed"
