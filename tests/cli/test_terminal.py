"""What a person sees on a terminal while runs train."""

import re
import sys
import time

import pytest

from tests.helpers.apps import SMALL, command, run
from tests.helpers.terminals import Terminal, slow_groups

pytestmark = [pytest.mark.slow, pytest.mark.process]

STEPS = r"step (\d+) of 12"


def steps(transcript):
    """Return the steps that a transcript shows."""
    return set(map(int, re.findall(STEPS, transcript)))


def test_the_steps_of_a_parallel_sweep_move_on_its_own_terminal_and_on_that_of_watch(tmp_path):
    options, config_dir = slow_groups(tmp_path, 0.4), 2
    small = [*SMALL, "trainer.max_epochs=4", "seed=0,1", *options[config_dir:]]
    parallel = ("hydra/launcher=parallel", "hydra.launcher.workers=2", "hydra.launcher.threads=1")
    sweep = Terminal(*command(tmp_path, "-m", *options[:config_dir], *small, *parallel))
    while not list(tmp_path.glob("attempts/*/*/checkpoint/progress.json")):
        assert sweep.process.poll() is None, sweep.transcript()
        time.sleep(0.05)
    watch = Terminal(sys.executable, "-m", "xlora_bench", "status", str(tmp_path), "--watch")
    own, watched = sweep.transcript(), watch.transcript()
    assert watch.process.returncode == 0, watched
    for text in (own, watched):
        assert len(steps(text)) >= 3, text
    assert "0 of 2 runs ended | seed=0: " in own
    assert re.search(r"\x1b\[2K\r?run 1 of 2 \| ", own), "the line of an ended run replaces the heartbeat"
    assert "Epoch" not in own


def test_a_single_run_has_a_progress_bar_on_a_terminal_alone(tmp_path):
    on_terminal = Terminal(*command(tmp_path / "a", *SMALL)).transcript()
    assert "Epoch 1/1" in on_terminal
    assert "Epoch" not in Terminal(*command(tmp_path / "b", *SMALL, "trainer.enable_progress_bar=false")).transcript()
    assert "Epoch" not in run(tmp_path / "c", *SMALL).stdout
    assert "Epoch 1/1" in run(tmp_path / "d", *SMALL, "callbacks=progress").stdout
