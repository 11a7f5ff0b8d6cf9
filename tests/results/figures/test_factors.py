"""The figure of the factors."""

import pandas as pd
import pytest

from tests.helpers.records import grid
from xlora_bench.results.figures import factors
from xlora_bench.results.frame.pivot_axes import find_pivot_axes
from xlora_bench.results.reports.report import write_report

pytestmark = pytest.mark.slow

COLUMNS = [f"{what}_{factor}" for what in ("norm", "grad_norm", "change") for factor in "BA"]


def monitored(folder, run_id, scale):
    """Write the rows of two modules at steps 2 and 4; every norm is `scale` times a number of its own."""
    rows = [
        {"step": step, "module": module, **{name: scale * (step + module + k) for k, name in enumerate(COLUMNS)}}
        for step in (2, 4)
        for module in (0, 2)
    ]
    pd.DataFrame(rows).to_csv(folder / "runs" / run_id / "factors.csv", index=False)


@pytest.fixture
def frame(tmp_path):
    runs = [{"adapter": name, "seed": seed} for name in ("lora", "lu") for seed in (0, 1)]
    runs += [{"adapter": "head"}, {"adapter": "vera", "status": "collapsed"}]
    frame = grid(tmp_path, runs)
    for run_id, name, seed in zip(frame["run_id"], frame["adapter"], frame["seed"], strict=True):
        if name != "head":
            monitored(tmp_path, run_id, 1.0 + seed)
    return frame


def test_a_line_is_the_mean_over_modules_and_completed_runs(frame, tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(factors, "_write", lambda lines, path, labels: drawn.update(lines) or [])
    factors.write_factors(frame, tmp_path, axes=find_pivot_axes(frame), labels={}, results_dir=tmp_path)
    assert {method for _, (method, *_) in drawn} == {"lora", "lu"}
    for line in drawn.values():
        for k, name in enumerate(COLUMNS):
            assert dict(line[name]) == {step: 1.5 * (step + 1 + k) for step in (2, 4)}


def test_it_is_part_of_a_report_where_runs_were_monitored(frame, tmp_path):
    write_report(frame, tmp_path / "r", title="t", results_dir=tmp_path)
    assert (tmp_path / "r" / "factors.png").read_bytes().startswith(b"\x89PNG")
    text = (tmp_path / "r" / "factors.svg").read_text()
    for word in ("gradient norm", "change in one step", "factor B", "factor A", "lora", "lu"):
        assert f"<!-- {word} -->" in text
    assert "vera" not in text
    write_report(frame, tmp_path / "without", title="t")
    assert not (tmp_path / "without" / "factors.png").exists()


def test_a_large_sweep_or_an_older_file_gives_none(frame, tmp_path, monkeypatch):
    options = {"axes": find_pivot_axes(frame), "labels": {}, "results_dir": tmp_path}
    monkeypatch.setattr(factors, "MOST_RUNS", 4)
    assert factors.write_factors(frame, tmp_path, **options) == []
    monkeypatch.undo()
    for path in tmp_path.glob("runs/*/factors.csv"):
        pd.read_csv(path).drop(columns="change_A").to_csv(path, index=False)
    assert factors.write_factors(frame, tmp_path, **options) == []
