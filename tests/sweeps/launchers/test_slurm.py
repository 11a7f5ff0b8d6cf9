"""Parts of `hydra/launcher=slurm` that need no Slurm; tests/cluster has the others."""

import json
import time

import pytest

from xlora_bench.runs import claim
from xlora_bench.sweeps.launchers import slurm
from xlora_bench.sweeps.launchers.slurm import UnlessEnded, is_held
from xlora_bench.sweeps.launchers.workers import WorkerSlot


def test_without_slurm_the_line_names_a_way_out(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match=r"no command `sbatch` on this machine; .* hydra/launcher=parallel"):
        slurm.slurm("sbatch")


def test_a_worker_waits_for_held_runs_until_a_lost_claim_has_expired(monkeypatch, tmp_path):
    monkeypatch.setattr(claim, "SECONDS", 0.2)
    pool = UnlessEnded([WorkerSlot(threads=1)], folder=tmp_path)
    pool._left_out = [(0, "ended")]
    assert pool.wait(0) == [(0, "ended")]
    assert pool.waits
    time.sleep(0.4)
    assert pool.wait(0) == []
    assert not pool.waits


def test_a_run_is_held_as_long_as_its_claim(tmp_path):
    folder = tmp_path / "slurm" / "sweep" / "launch"
    assert not is_held(folder, 0)
    (folder / "0").mkdir(parents=True)
    (folder / "0" / "run.json").write_text(json.dumps({"run_id": "a"}))
    own = claim.Claim(tmp_path / "claims" / "a")
    assert own.take()
    with own:
        assert is_held(folder, 0)
    assert not is_held(folder, 0)
