"""Several processes on one results folder: each run is trained once, and only one attempt at it is published."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest

from tests.helpers.apps import SMALL, command, records, run

pytestmark = [pytest.mark.slow, pytest.mark.process]

SHORT_LEASE = (
    "import xlora_bench.runs.claim as claim; claim.SECONDS = 3.0; from xlora_bench.cli.main import main; main()"
)


def start(words):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "160"}
    return subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(process):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out, err


def test_copies_of_one_command_train_each_run_once_and_say_what_they_wait_for(tmp_path):
    sweep = ("-m", *SMALL, "trainer.max_epochs=6", "adapter=lora,lu", "seed=0,1,2")
    copies = [start(command(tmp_path / "shared", *sweep)) for _ in range(2)]
    printed = [ended(copy) for copy in copies]
    lines = [line for out, _ in printed for line in out.splitlines() if line.startswith("run ")]
    assert len(lines) == 12
    assert sum("already done" in line for line in lines) == 6
    waits = re.findall(r"waiting for (.+), which is trained by process (\d+) on", printed[0][1] + printed[1][1])
    assert all(int(pid) in {copy.pid for copy in copies} for _, pid in waits)
    assert run(tmp_path / "alone", *sweep).returncode == 0
    scores = [{one["run_id"]: one["metrics"] for one in records(tmp_path / name)} for name in ("shared", "alone")]
    assert scores[0] == scores[1]
    assert not list((tmp_path / "shared" / "claims").iterdir())
    assert not list((tmp_path / "shared" / "attempts").iterdir())


def test_a_frozen_process_that_wakes_after_its_claim_was_taken_throws_its_attempt_away(tmp_path):
    words = command(tmp_path, *SMALL, "trainer.max_epochs=30")
    words = [words[0], "-c", SHORT_LEASE, *words[3:]]
    assert sys.executable == words[0]
    frozen = start(words)
    while not list(tmp_path.glob("attempts/*/*/checkpoint/last.ckpt")):
        assert frozen.poll() is None
        time.sleep(0.01)
    frozen.send_signal(signal.SIGSTOP)
    (attempt,) = tmp_path.glob("attempts/*/*")
    awake = start(words)
    _, err = ended(awake)
    assert f"which process {frozen.pid} on" in err  # what it waited for
    frozen.send_signal(signal.SIGCONT)
    _, err = ended(frozen)
    assert "this attempt at it is thrown away" in err
    (record,) = records(tmp_path)
    assert record["attempt"] > int(attempt.name)
    assert record["status"] == "completed"
    assert len(record["metrics"]["history"]) == 30
    assert not list((tmp_path / "attempts").iterdir())
