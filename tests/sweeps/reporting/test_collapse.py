"""The sentences about sweeps in which most runs collapsed."""

import math

from tests.helpers.records import grid
from xlora_bench.results.tables.build_table import build_table
from xlora_bench.sweeps.reporting.collapse import collapse_lines, row_count, step_count

CONSTANT = "constant predictions in epoch 3"


def runs_of(folder, *reasons, **known):
    runs = [
        {"seed": seed, "lr": 1e-4, "status": "collapsed" if reason else "completed", "reason": reason}
        for seed, reason in enumerate(reasons)
    ]
    return grid(folder, runs).assign(**{"task.batch_size": 8, "trainer.max_epochs": 3, **known})


def test_nothing_is_said_of_a_minority(tmp_path):
    assert collapse_lines(runs_of(tmp_path, CONSTANT, None)) == []


def test_many_steps_do_not_ask_for_a_higher_rate_alone(tmp_path):
    (line,) = collapse_lines(runs_of(tmp_path, CONSTANT, CONSTANT, None, **{"task.max_train_rows": 4096}))
    assert line.startswith("2 of 3 runs collapsed (constant predictions): training for 1,536 optimizer steps")
    assert "higher if the training loss hardly falls, lower if it jumps" in line


def test_a_loss_that_is_not_finite_asks_for_a_lower_rate(tmp_path):
    reasons = ["the training loss is nan at step 3", "the training loss is inf at step 4", CONSTANT]
    constant, high = collapse_lines(runs_of(tmp_path, *reasons))
    assert constant.startswith("1 of 3 runs collapsed (constant predictions)")
    assert high.startswith("2 of 3 runs collapsed (not finite)")
    assert "Lower optimizer.lr" in high


def test_rows_and_steps_of_a_run():
    run = {"cost/samples_per_second": 10.0, "cost/train_seconds": 3.0, "last/epoch": 2, "task.max_train_rows": 99}
    assert row_count(run) == 15
    assert step_count(run) is None
    assert step_count({**run, "task.batch_size": 4, "trainer.max_epochs": 5}) == 20
    assert (
        step_count({**run, "task.batch_size": 4, "trainer.max_epochs": 5, "trainer.accumulate_grad_batches": 3}) == 10
    )
    assert row_count({"task.max_train_rows": 99, "last/epoch": math.nan}) == 99
    assert row_count({"task.max_train_rows": None}) is None


def test_a_table_does_not_list_many_run_ids(tmp_path):
    text = build_table(runs_of(tmp_path, *[CONSTANT] * 4), title="t").to_markdown()
    assert f"Collapsed: 4 runs ({0:016x} and others, see runs.csv): {CONSTANT}" in text
    few = build_table(runs_of(tmp_path / "few", *[CONSTANT] * 3), title="t").to_markdown()
    assert f"Collapsed: {0:016x}, {1:016x}, {2:016x}: {CONSTANT}" in few
