"""Which record of a run is used where the results folder is not that of the sweep."""

import pytest

from tests.helpers.records import record
from xlora_bench.runs.claim import RecordedAtHomeError
from xlora_bench.runs.run import Run
from xlora_bench.runs.sweep_context import away_from_home
from xlora_bench.training.train import check_home, usable

BEFORE, AFTER = "1970-01-01T00:00:10+00:00", "1970-01-01T00:00:30+00:00"
SINCE = 20.0


@pytest.mark.parametrize(
    ("rerun", "home", "here", "expected"),
    [
        (False, None, None, None),
        (False, None, BEFORE, BEFORE),
        (False, BEFORE, None, "home"),
        (False, BEFORE, BEFORE, BEFORE),
        (False, AFTER, BEFORE, "home"),
        (True, BEFORE, None, None),
        (True, BEFORE, BEFORE, None),
        (True, BEFORE, AFTER, AFTER),
        (True, AFTER, None, "home"),
    ],
)
def test_the_record_at_home_is_used_unless_the_run_is_to_be_trained_again(tmp_path, rerun, home, here, expected):
    run = Run(id="a", folder=tmp_path / "runs" / "a", config={"rerun": rerun}, choices={})
    if here:
        record("a", finished=here).write(run.record_path)
    with away_from_home({"a": home} if home else {}):
        if expected == "home":
            with pytest.raises(RecordedAtHomeError):
                check_home(run, since=SINCE)
            return
        check_home(run, since=SINCE)
    used = usable(run, since=SINCE)
    assert (used and used.finished) == expected
