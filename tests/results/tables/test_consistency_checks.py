from tests.helpers.records import record
from xlora_bench.results.frame.collect import collect
from xlora_bench.results.tables.build_table import build_table
from xlora_bench.results.tables.consistency_checks import consistency_notes


def write(
    folder,
    name,
    *,
    commit="a" * 40,
    dirty=False,
    data="d1",
    weights="w1",
    torch="2.0",
    task="rte",
    trainer=None,
    **task_config,
):
    record(
        name,
        choices={"adapter": "lora", "task": task, "model": "minilm"},
        config={"task": task_config, "trainer": trainer or {}},
        code={"commit": commit, "dirty": dirty},
        hashes={"data": data, "weights": weights},
        versions={"torch": torch, "wandb": None},
    ).write(folder / "runs" / name / "record.json")


def test_a_table_of_one_state_says_nothing(tmp_path):
    for name in ("a", "b"):
        write(tmp_path, name)
    assert consistency_notes(collect(tmp_path)) == []


def test_tasks_and_row_limits_have_their_own_data(tmp_path):
    write(tmp_path, "a", data="d1", max_train_rows=10)
    write(tmp_path, "b", data="d2", max_train_rows=20)
    write(tmp_path, "c", data="d3", task="mrpc")
    assert consistency_notes(collect(tmp_path)) == []


def test_each_kind_of_mixture_is_named_with_its_runs(tmp_path):
    for name in ("a", "b", "c"):
        write(tmp_path, name)
    write(tmp_path, "other_code", commit="b" * 40)
    write(tmp_path, "changed", dirty=True)
    write(tmp_path, "other_data", data="d2")
    write(tmp_path, "other_weights", weights="w2")
    write(tmp_path, "other_torch", torch="2.1")
    notes = "\n".join(consistency_notes(collect(tmp_path)))
    assert "Mixed code: aaaaaaaaa (6 runs); " in notes
    assert "bbbbbbbbb (other_code)" in notes
    assert "aaaaaaaaa with changes (changed)" in notes
    assert "Mixed data of the same task: d1 (7 runs); d2 (other_data)" in notes
    assert "Mixed weights of the same model: w1 (7 runs); w2 (other_weights)" in notes
    assert "Mixed versions of torch: 2.0 (7 runs); 2.1 (other_torch)" in notes
    assert "wandb" not in notes
    assert "Mixed code" in build_table(collect(tmp_path), title="t").to_markdown()


def test_runs_of_several_precisions_are_named(tmp_path):
    trainers = {"a": {"precision": "32-true", "tf32": None}, "b": {"precision": "32-true"}, "old": {}}
    for name, trainer in trainers.items():
        write(tmp_path, name, trainer=trainer)
    assert consistency_notes(collect(tmp_path)) == []
    write(tmp_path, "rounded", trainer={"precision": "32-true", "tf32": True})
    write(tmp_path, "half", trainer={"precision": "bf16-mixed", "tf32": False})
    (note,) = consistency_notes(collect(tmp_path))
    assert note == (
        "Mixed precision: 32-true (2 runs); bf16-mixed (half); 32-true with TF32 (rounded). "
        "Such runs round differently: compare them with care."
    )
    assert note in build_table(collect(tmp_path), title="t").to_markdown()


def test_many_runs_are_counted_after_the_first(tmp_path):
    for number in range(30):
        write(tmp_path, f"{number:02d}", commit=("a" if number < 16 else "b") * 40)
    (note,) = consistency_notes(collect(tmp_path))
    assert "aaaaaaaaa (16 runs); bbbbbbbbb (16, 17, 18, 19, 20, 21, 22, 23 and 6 more)" in note
