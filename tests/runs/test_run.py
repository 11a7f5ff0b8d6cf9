"""A run's id is a hash of its config, data and parent."""

from xlora_bench.runs.run import Run


def run_of(config, folder, data="d"):
    return Run.of(config, choices={}, data=data, results_dir=folder)


def test_a_run_is_its_config_and_data(tmp_path):
    config = {"seed": 0, "adapter": {"rank": 8}, "paths": {"data_dir": "x"}, "monitor": {"every_n_steps": 5}}
    same = {"adapter": {"rank": 8}, "seed": 0, "paths": {"data_dir": "y"}, "monitor": {"every_n_steps": 6}}
    assert run_of(config, tmp_path).id == run_of(same, tmp_path).id
    others = [
        run_of(config, tmp_path, data="e"),
        run_of(config | {"seed": 1}, tmp_path),
        run_of(config | {"new": 1}, tmp_path),
    ]
    assert len({run_of(config, tmp_path).id, *(other.id for other in others)}) == 4


def test_the_id_depends_on_the_parent_and_not_on_how_start_from_names_it(tmp_path):
    def name(overrides, parent):
        return Run.of(
            {"seed": 0, "start_from": overrides}, choices={}, data="d", results_dir=tmp_path, parent=parent
        ).id

    assert name(["task=mnli"], "p") == name(["task=mnli", "optimizer.lr=1"], "p")
    assert len({name(["task=mnli"], "p"), name(["task=mnli"], "q"), name(None, None)}) == 3


def test_a_half_written_record_is_not_a_record(tmp_path):
    mine = run_of({"seed": 0}, tmp_path)
    mine.folder.mkdir(parents=True)
    mine.record_path.write_text('{"run": "')
    assert mine.finished() is None
