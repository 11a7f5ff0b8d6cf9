"""States of runs while other processes train them."""

import shutil

from tests.helpers.records import record
from xlora_bench.sweeps.reporting import run_states


def test_a_run_that_ends_while_the_folder_is_read_is_shown(tmp_path, monkeypatch):
    (tmp_path / "attempts" / "a" / "1").mkdir(parents=True)
    (tmp_path / "runs").mkdir()

    def ends(folder):
        record("a").write(folder / "record.json")
        shutil.rmtree(tmp_path / "attempts")

    monkeypatch.setattr(run_states, "last_attempt", ends)
    (state,) = run_states.run_states(tmp_path)
    assert (state.run_id, state.state) == ("a", "completed")
