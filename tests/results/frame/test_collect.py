import math

from tests.helpers.records import grid, record
from xlora_bench.results.frame.collect import collect


def test_a_row_holds_choices_config_scores_and_costs(tmp_path):
    (row,) = grid(tmp_path, [{"rank": 4, "score": 0.75, "seed": 3}]).to_dict("records")
    assert row["adapter"] == "lora"
    assert (row["adapter.rank"], row["adapter.alpha"], row["seed"]) == (4, 8, 3)
    assert (row["headline"], row["score"], row["best/loss"]) == ("accuracy", 0.75, 0.25)
    assert math.isclose(row["score_last"], 0.74)
    assert (row["parameters/adapter"], row["cost/train_seconds"]) == (400, 2.0)


def test_cosmetic_keys_and_hydras_choices_are_no_columns(tmp_path):
    config = {"paths": {"results_dir": "x"}, "paper": {"title": "t"}, "targets": {"modules": ["q", "v"]}}
    choices = {"targets": "attention", "logger": "csv", "hydra/launcher": "basic"}
    record("a", config=config, choices=choices).write(tmp_path / "runs" / "a" / "record.json")
    frame = collect(tmp_path)
    assert not {"paths.results_dir", "paper.title", "logger", "hydra/launcher"} & set(frame.columns)
    assert frame["targets.modules"].tolist() == ['["q", "v"]']


def test_unreadable_and_missing_runs_are_told(tmp_path, caplog):
    grid(tmp_path, [{}, {"seed": 1}])
    broken = tmp_path / "runs" / "broken" / "record.json"
    broken.parent.mkdir()
    broken.write_text('{"run": ')
    (tmp_path / "runs" / "running").mkdir()
    frame = collect(tmp_path)
    assert len(frame) == 2
    assert list(frame.attrs["unreadable"]) == [str(broken)]
    assert frame.attrs["missing"] == ["running"]
    assert str(broken) in caplog.text


def test_wanted_runs_come_once_and_in_their_order(tmp_path):
    first, second = grid(tmp_path, [{}, {"seed": 1}])["run_id"]
    frame = collect(tmp_path, [second, "unknown", first, second])
    assert frame["run_id"].tolist() == [second, first]
    assert frame.attrs["missing"] == ["unknown"]


def test_an_empty_folder_gives_an_empty_frame(tmp_path):
    assert collect(tmp_path).empty
    assert "score" in collect(tmp_path).columns


def test_memory_of_a_process_is_not_that_of_a_run(tmp_path):
    runs = {
        "a": {"machine": {"gpus": []}, "config": {}},
        "b": {"machine": {"gpus": ["H200"]}, "config": {"trainer": {"accelerator": "cpu"}}},
        "c": {"machine": {"gpus": ["H200"]}, "config": {"trainer": {"accelerator": "auto"}}},
    }
    for run_id, known in runs.items():
        record(run_id, cost={"peak_memory_bytes": 5e8}, **known).write(tmp_path / "runs" / run_id / "record.json")
    memory = collect(tmp_path).set_index("run_id")["cost/peak_memory_bytes"]
    assert memory.notna().to_dict() == {"a": False, "b": False, "c": True}
    assert memory["c"] == 5e8
