"""What `prepare` chooses."""

import pytest

from xlora_bench.training.prepare import trains_on_cpu


@pytest.mark.parametrize(
    ("accelerator", "there", "cpu"),
    [("cpu", True, True), ("auto", True, False), ("auto", False, True), ("gpu", True, False)],
)
def test_a_run_trains_on_the_cpu_where_the_config_names_it_or_nothing_else_is_there(
    accelerator, there, cpu, monkeypatch
):
    monkeypatch.setattr("torch.accelerator.is_available", lambda: there)
    assert trains_on_cpu(accelerator) is cpu
