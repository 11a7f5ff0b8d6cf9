"""The committed findings: their tables are what their records say."""

import math
import statistics
from collections import defaultdict
from pathlib import Path

import pandas as pd
import pytest

from tests.helpers.names import CONF
from xlora_bench.results.reproduce.records_archive import read_archive

FINDINGS = sorted((CONF.parent / "docs" / "findings").glob("*/records.jsonl.gz"))
TUNING_SEED = 1000


def score_of(run):
    return run.record.metrics["best"][run.record.metrics["headline"]]


@pytest.mark.parametrize("path", FINDINGS, ids=lambda path: path.parent.name)
def test_means_and_counts_are_those_of_the_records(path: Path):
    reported, trials = defaultdict(lambda: defaultdict(list)), defaultdict(dict)
    for run in read_archive(path).values():
        config, choices = run.record.config, run.record.choices
        method = choices["adapter"], config["adapter"].get("spec"), choices["task"]
        rate = config["optimizer"]["lr"]
        if run.record.seed != TUNING_SEED:
            reported[method][rate].append(run)
        elif run.record.status == "completed":
            trials[method][rate] = score_of(run)
    table = pd.read_csv(path.with_name("table.csv"))
    assert len(table) == 2 * len(reported)
    for line in table.to_dict("records"):
        spec = None if pd.isna(line["adapter.spec"]) else line["adapter.spec"]
        method = line["adapter"], spec, line["task"]
        rate = 1e-3 if line["tuning"] == "fixed" else max(trials[method], key=trials[method].get, default=None)
        runs = reported[method].get(rate, [])
        done = [score_of(run) for run in runs if run.record.status == "completed"]
        assert (line["n"], line["collapsed"]) == (len(done), len(runs) - len(done))
        assert line["missing"] == 0
        for key, of in (("mean", statistics.fmean), ("std", statistics.stdev)):
            if len(done) > 1:
                assert line[key] == pytest.approx(of(done))
        assert bool(done) or math.isnan(line["mean"])


def test_there_is_a_finding():
    assert FINDINGS
