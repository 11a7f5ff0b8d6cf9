"""The parts of `make bench`, and what they compute from the measured times."""

import importlib
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

pytest.importorskip("loralib", reason="the extra `bench` is not installed")

from benchmarks import __main__ as all_benchmarks
from benchmarks import gpu, models, runs
from benchmarks.batches import made, packed
from benchmarks.growth import of_size
from benchmarks.limit import flops
from benchmarks.step import training_step
from benchmarks.sweeps import Grid, measured, spread_over
from benchmarks.tables import publish
from benchmarks.timing import interleaved, ratios
from tests.helpers.names import ROOT


@pytest.mark.parametrize("name", sorted({*all_benchmarks.PARTS, *all_benchmarks.FULL}))
def test_every_part_is_a_program_and_its_options_exist(name):
    module = importlib.import_module(f"benchmarks.{name}")
    assert f"python -m benchmarks.{name}" in module.__doc__
    text = Path(module.__file__).read_text() + Path(models.__file__).with_name("options.py").read_text()
    given = [
        *all_benchmarks.PARTS[name],
        *all_benchmarks.FULL[name],
        *(["--data-dir"] if name in all_benchmarks.DATA else []),
    ]
    assert not [option for option in given if option.startswith("--") and f'"{option}"' not in text]


def test_functions_that_a_run_is_timed_by_exist():
    assert not [part for part, owner, function in runs.PARTS if not callable(getattr(owner, function, None))]


def test_ratios_are_paired_item_by_item():
    seconds = pd.DataFrame({"a": [1.0, 10.0, 2.0], "b": [2.0, 5.0, 8.0]})  # b / a: 2, 0.5, 4
    frame = ratios(seconds, reference="a")
    assert frame.loc["b", ["ratio", "low", "high", "ms"]].tolist() == [2.0, 1.25, 3.0, 5000.0]
    assert frame.loc["a", "ratio"] == 1


def test_everybody_takes_a_turn_on_each_item_and_another_one_comes_first():
    calls = []
    works = {name: lambda item, name=name: calls.append((item, name)) for name in "ab"}
    seconds = interleaved(works, [0, 1], prepare=lambda name, item: 10 * item)
    assert calls == [(0, "a"), (0, "b"), (0, "a"), (0, "b"), (10, "b"), (10, "a")]  # the first two are to warm up
    assert seconds.shape == (2, 2)


def test_the_limit_counts_the_products_that_torch_computes_on_full_rows():
    lengths, width = np.full(8, 16), 384
    batch = packed()(made([[7] * length for length in lengths]))
    assert batch["input_ids"].numel() == lengths.sum()  # two rows of 64 without padding
    net = models.train_head(models.floor(models.minilm(), targets="all-linear"))
    with FlopCounterMode(display=False) as counter:
        training_step(net)(batch)
    counted = counter.get_flop_counts()["Global"]
    linear = sum(counted[op] for op in (torch.ops.aten.addmm, torch.ops.aten.mm))
    head = 2 * len(lengths) * (width * width * 2 + width * 2 * 3)  # pooler: y and dx; classifier: y, dx, dW
    assert linear - head == flops(lengths, train=True)
    assert flops(lengths, train=False) * 2 - flops(lengths, train=True) == 2 * 3 * width**2 * lengths.sum()


def test_sampled_baseline_runs_spread_over_the_grid():
    points = Grid(seeds=(0, 1, 2)).points()
    assert len(points) == len(set(points)) == 45
    assert [points.index(point) for point in spread_over(points, 3)] == [7, 22, 37]
    assert spread_over(points, None) == points
    assert [len(of_size(count).points()) for count in (5, 15, 45)] == [5, 15, 45]
    with pytest.raises(ValueError, match=r"`--runs` \(=7\) must be 5 or a multiple of 15"):
        of_size(7)


def test_memory_is_that_of_a_process_and_its_children(tmp_path):
    child = "import time; held = b'x' * 2**27; time.sleep(0.6)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    spent = measured([sys.executable, "-c", parent], log_to=tmp_path / "log")
    assert 2**27 < spent.peak_bytes < 2**28
    assert spent.seconds > 0.6
    with pytest.raises(RuntimeError, match="ended with 3; see "):
        measured([sys.executable, "-c", "raise SystemExit(3)"], log_to=tmp_path / "log")


def test_runs_of_a_gpu_are_measured_on_the_cpu_too(tmp_path):
    words = ["--device", "cpu", "--results", str(tmp_path), "--precisions", "fp32", "tf32", "--baseline-runs", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", *words, "--together", "1", "999", "--threads", "1"],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    assert "not run: the GPU, TF32, bert-base, 4 and 8 runs" in done.stderr
    frame = pd.read_csv(tmp_path / "gpu" / "cpu.csv")
    assert frame[["what", "precision", "together"]].to_numpy().tolist() == [["Trainer", "fp32", 1], ["ours", "fp32", 1]]
    assert frame["runs per hour"].tolist() == pytest.approx(
        (3600 * np.array([1, 2]) / frame["seconds"]).tolist(), rel=1e-4
    )
    assert frame["relative"].tolist() == pytest.approx([1, frame["seconds"][0] * 2 / frame["seconds"][1]], rel=1e-4)
    assert (frame["peak MiB"] > 100).all()
    assert "# Runs per hour: cpu" in (tmp_path / "gpu" / "cpu.md").read_text()


def test_what_the_driver_does_not_tell_is_no_number(tmp_path, monkeypatch):
    card = gpu.card_of("100, 50.5\n300, 70.5\n200, [N/A]\n12")  # the last line was cut off
    assert card == (300, 60.5)
    assert np.isnan(gpu.card_of("")).all()
    driver = tmp_path / "nvidia-smi"
    driver.write_text('#!/bin/sh\n[ "$5" = -i ] && [ "$6" = GPU-a ] && echo 700, 90\nexec sleep 60\n')
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a")
    monkeypatch.setattr(gpu, "WORK", tmp_path)
    command = [sys.executable, "-c", "import time; time.sleep(1)"]
    row = gpu.measured_row(SimpleNamespace(device="cuda"), command, runs=2)
    assert row["peak MiB"] == 700
    assert row["Wh per run"] == pytest.approx(90 * row["seconds"] / 3600 / 2)
    row = gpu.measured_row(SimpleNamespace(device="cuda"), [sys.executable, "-c", "raise SystemExit(1)"], runs=2)
    assert np.isnan(list(row.values())).all()


def test_a_table_is_written_for_readers_and_for_programs(tmp_path):
    publish("x", pd.DataFrame({"step": ["a"], "ms": [1.23456]}), title="T", notes="Why.", folder=tmp_path)
    text = (tmp_path / "x.md").read_text()
    assert text.startswith("# T\n")
    assert "\nWhy.\n\n| step | ms |\n| --- | --- |\n| a | 1.235 |\n" in text
    assert pd.read_csv(tmp_path / "x.csv").to_dict("records") == [{"step": "a", "ms": 1.23456}]
