"""Parts of `hydra/launcher=slurm` that need no Slurm; tests/cluster has the others."""

import json

import pytest

from xlora_bench.runs import claim
from xlora_bench.sweeps.launchers import slurm_array
from xlora_bench.sweeps.launchers.slurm import is_held


def test_without_slurm_the_line_names_a_way_out(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match=r"no command `sbatch` on this machine; .* hydra/launcher=parallel"):
        slurm_array.slurm("sbatch")


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
